"""``emp comfyui``. Nothing of the cluster is imported before a command runs."""
