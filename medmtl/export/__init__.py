"""A trained run as a folder that other programs use: ONNX, an exported program, safetensors, or a MONAI Bundle."""
