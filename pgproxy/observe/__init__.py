"""What the proxy says about itself."""
