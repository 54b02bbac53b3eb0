"""What training and extraction import on first use, for servers that fork one process after the other (`set_forkserver_preload`)."""

from PIL import Image

from pipeline.media.torchaudio_compat import load_torchaudio

load_torchaudio()
Image.init()
