"""What the resize and the crop variant share."""
