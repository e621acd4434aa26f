"""The network: backbone, neck, heads, and the tasks built of them."""
