"""Models that people upload to compare. They are hostile until proven otherwise: DESIGN section 8.

header    what a safetensors file says of itself, read by us before anything is allocated
match     which architecture its names and shapes are those of
trial     loaded and tried, in a process with bounds on memory and time
record    what is kept of an upload
keeping   accept, list, rename, delete
"""
