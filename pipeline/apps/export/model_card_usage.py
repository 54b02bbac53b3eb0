"""Usage section of the model card: Python code that runs an exported file without this program.

The code is filled in for the exported file, and a test executes it unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PREPARE = """\
import json

import librosa
import numpy as np
{imports}
from PIL import Image, ImageOps

{open}
audio, size = facts["audio"], facts["image_size"]

image = ImageOps.exif_transpose(Image.open("frame.jpg")).convert("RGBA")  # upright, transparent parts white
image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
frames = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)[None]

rate, length = audio["sample_rate"], round(audio["sample_rate"] * audio["clip_seconds"])
wave, _ = librosa.load("audio.wav", sr=rate, mono=True)
start = max(0, (len(wave) - length) // 2)  # the middle of the audio, which belongs to the frame
wave = librosa.util.pad_center(wave[start : start + length], size=length)
wave = wave / np.abs(wave).max()  # skip silent windows: this divides by zero
mel = librosa.feature.melspectrogram(
    y=wave, sr=rate, n_fft=audio["n_fft"], hop_length=audio["hop_length"], n_mels=audio["n_mels"],
    power=audio["power"], pad_mode="constant",
)
log_mel = np.log(np.maximum(mel, audio["log_floor"]))[None].astype(np.float32)

{run}
{normalize}
sounding = heat > facts["delta_v"]
overlay = Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR)"""

OPEN = {
    "onnx": """\
session = onnxruntime.InferenceSession({name})
facts = {{key: json.loads(value) if key in ("audio", "image_size", "delta_v") else value
         for key, value in session.get_modelmeta().custom_metadata_map.items()}}""",
    "torch": """\
extra = {{"soundspot.json": ""}}
model = torch.jit.load({name}, map_location="cpu", _extra_files=extra)
facts = json.loads(extra["soundspot.json"])""",
}
RUN = {
    "onnx": 'response, embedding = session.run(None, {"frames": frames, "log_mel": log_mel})',
    "torch": """\
with torch.no_grad():
    response, embedding = (each.numpy() for each in model(torch.tensor(frames), torch.tensor(log_mel)))""",
}
NORMALIZE = {
    "min-max": "heat = (response[0] - response[0].min()) / np.ptp(response[0])",
    "relu-max": "heat = np.maximum(response[0], 0) / response[0].max()",
}
PACKAGES = {"onnx": "onnxruntime", "torch": "torch"}


def usage(name: str, format: str, facts: Mapping[str, Any]) -> str:
    """Describe the inputs and outputs, with code that prepares the inputs and reads the outputs.

    Parameters
    ----------
    name : str
        Name of the exported file.
    format : str
        "onnx" or "torch".
    facts : mapping
        Metadata of the file.
    """
    code = PREPARE.format(
        imports=f"import {PACKAGES[format]}",
        open=OPEN[format].format(name=json.dumps(name)),
        run=RUN[format],
        normalize=NORMALIZE[facts["normalization"]],
    )
    ports = "\n".join(f"| `{port}` | {facts[port]} |" for port in ("frames", "log_mel", "response", "audio_embedding"))
    return (
        f"| | |\n| --- | --- |\n{ports}\n\nn is the batch size. The code below reads its settings from the file "
        f"itself. It requires {PACKAGES[format]}, librosa and Pillow, but not soundspot:\n\n```python\n{code}\n```"
    )
