"""Export a trained model to ONNX or TorchScript with a model card (`soundspot export`).

- `export`: writes the file and verifies that its outputs equal the model's.
- `formats`: the file formats.
- `model_card`: the Markdown card with settings, scores and limits. `model_card_usage`: the card's example code.
"""
