"""A timm backbone as one thing: image to tapped feature map, and its own FFN for queries."""
