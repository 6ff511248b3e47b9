"""`wgpu` and `worker`: the workers of a machine by the numbers of their GPUs, for people and scripts that know them so.

A face on the process manager that keeps them: it starts nothing by itself, and ends nothing by a number in a file.
"""
