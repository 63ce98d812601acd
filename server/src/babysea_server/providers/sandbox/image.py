"""Still pictures: PNG, JPEG and WebP."""

import math
import zlib
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, PngImagePlugin

from babysea_server.providers.sandbox.artwork import Painter, artwork_of
from babysea_server.providers.sandbox.overlay import patches_of
from babysea_server.providers.sandbox.palette import Rgb
from babysea_server.providers.sandbox.scene import Scene

#: The note every file carries, for whoever looks inside.
COMMENT = "sandbox: drawn by BabySea's sandbox provider, not made by a model"

#: Pixels of the grid the art is painted on before it is enlarged.
_GRID_AREA_PX = 120_000
_EXIF_IMAGE_DESCRIPTION = 0x010E


def draw(scene: Scene) -> Image.Image:
    """The finished picture in RGB, exactly of the scene's size."""
    artwork = artwork_of(scene)
    scale = min(1.0, math.sqrt(_GRID_AREA_PX / (scene.width * scene.height)))
    grid = (max(8, round(scene.width * scale)), max(8, round(scene.height * scale)))
    painted = Painter(artwork, *grid, space=_unchanged).paint()
    levels = (np.clip(painted, 0, 1) * 255 + 0.5).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
    if picture.size != (scene.width, scene.height):
        picture = picture.resize((scene.width, scene.height), Image.Resampling.BICUBIC)
    for patch in patches_of(scene, artwork.palette):
        picture.paste(patch.image, (patch.x, patch.y), patch.image)
    return picture


def encode(picture: Image.Image, format: Literal["png", "jpg", "webp"]) -> bytes:
    """The picture as a file with the sandbox note in its metadata."""
    file = BytesIO()
    match format:
        case "png":
            note = PngImagePlugin.PngInfo()
            note.add_text("Comment", COMMENT)
            # Run lengths of row differences suit gradients: smaller and faster than zlib's default search.
            picture.save(file, "PNG", compress_level=3, compress_type=zlib.Z_RLE, pnginfo=note)
        case "jpg":
            picture.save(file, "JPEG", quality=88, comment=COMMENT.encode())
        case "webp":
            exif = Image.Exif()
            exif[_EXIF_IMAGE_DESCRIPTION] = COMMENT
            picture.save(file, "WEBP", quality=86, method=1, exif=exif)
    return file.getvalue()


def _unchanged(colour: Rgb) -> Rgb:
    return colour
