"""The files that say a plan to somebody else's programs: process managers and containers. Pure: a plan in, texts out."""
