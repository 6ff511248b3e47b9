"""The commands of the machine layer, each in a module of its own."""
