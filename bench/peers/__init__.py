"""One module per queue: how it is asked to submit, to work, and to tell what was recorded. They run in their own environments."""
