"""Resizes raw pictures with Pillow's bicubic, for test_pillow.c.

usage: pillow_resize.py PICTURES RESULTS
PICTURES holds, one after another: width, height, new width, new height (32 bits each, little-endian)
and the RGB pixels.  RESULTS becomes the pixels of the resized pictures.  Exit code 77 without Pillow.
"""
import struct
import sys

try:
    import PIL
    from PIL import Image
except ImportError:
    sys.exit(77)

with open(sys.argv[1], "rb") as pictures, open(sys.argv[2], "wb") as results:
    while head := pictures.read(16):
        width, height, new_width, new_height = struct.unpack("<4I", head)
        picture = Image.frombytes("RGB", (width, height), pictures.read(3 * width * height))
        resized = picture.resize((new_width, new_height), Image.BICUBIC)
        results.write(resized.tobytes())
print("Pillow", PIL.__version__)
