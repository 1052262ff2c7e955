"""Case studies that ship with Dataloupe."""
