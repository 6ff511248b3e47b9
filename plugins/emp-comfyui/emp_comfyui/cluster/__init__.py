"""Several ComfyUI servers as one: how they are configured, which of them gets a workflow, and whose paths it needs."""
