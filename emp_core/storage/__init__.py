"""Bytes in, references out: where the outputs of jobs are kept."""
