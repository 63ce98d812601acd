"""Drawing what the sandbox provider answers with: real pictures and real clips, made without any model.

Pure functions of their arguments, on the CPU; call them off the event loop. The bytes of a picture are
the same for the same scene on the same machine. Everything drawn says "sandbox", on the picture and in
the file's metadata.

Text: the built-in font draws basic Latin. Other scripts come from well-known fonts of the machine (Noto,
DejaVu and the like) where it has them; what no font can draw is named (`[rocket]`, `[6 CJK characters]`),
and the SVG leaves the original text to the viewer's fonts. Colour emoji are never drawn in colour.
"""

from typing import Literal

from babysea_server.providers.sandbox.image import draw, encode
from babysea_server.providers.sandbox.scene import Scene
from babysea_server.providers.sandbox.sizes import frame_size, video_frame_size
from babysea_server.providers.sandbox.svg import render_svg
from babysea_server.providers.sandbox.video import render_video

__all__ = ["ImageFormat", "Scene", "frame_size", "render_image", "render_video", "video_frame_size"]

ImageFormat = Literal["png", "jpg", "webp", "svg"]


def render_image(scene: Scene, format: ImageFormat) -> bytes:
    """The scene as a picture file of exactly `scene.width` x `scene.height` pixels.

    Raises:
        ValueError: the format is another one.
    """
    match format:
        case "svg":
            return render_svg(scene)
        case "png" | "jpg" | "webp":
            return encode(draw(scene), format)
        case _:
            raise ValueError(f"format must be png, jpg, webp or svg, not {format!r}")
