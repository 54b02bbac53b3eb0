"""Export a trained model to ONNX or TorchScript with a model card (`soundspot export`).

`export` writes the file and verifies that its outputs equal the model's, `formats` defines the file formats, and
`model_card` writes the Markdown card with settings, scores, limits and example code.
"""
