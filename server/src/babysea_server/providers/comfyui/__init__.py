"""ComfyUI: a server of one's own, driven by workflow templates that come with this package or from the operator."""
