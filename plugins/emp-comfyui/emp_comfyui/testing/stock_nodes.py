"""All node classes that the fake server knows from the start."""

from emp_comfyui.testing import nodes_image_changes, nodes_images, nodes_media, nodes_probe, nodes_sampling
from emp_comfyui.testing.node_class import NodeRegistry


def stock_nodes() -> NodeRegistry:
    """A registry of its own with the stock and the probe nodes."""
    modules = (nodes_images, nodes_image_changes, nodes_sampling, nodes_media, nodes_probe)
    return NodeRegistry([node_class for module in modules for node_class in module.CLASSES])
