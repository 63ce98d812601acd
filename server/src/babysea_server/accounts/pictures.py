"""Pictures of accounts: whatever is sent is drawn anew, so that only what this server made is ever served."""

import asyncio
from io import BytesIO
from uuid import UUID

from babysea_server.accounts import activity
from babysea_server.accounts.activity import Actor
from babysea_server.db.pool import Database

EDGE = 256
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_PIXELS_MAX = 25_000_000


class PictureRefusedError(ValueError):
    """This cannot be a picture of an account; the message says why, for people."""


def square_png(data: bytes) -> bytes:
    """The middle of a picture as PNG of 256 x 256 pixels, without anything else that was in its file.

    Raises:
        PictureRefusedError: not a PNG, JPEG, WebP or GIF picture, broken, or with too many pixels.
    """
    from PIL import Image, ImageOps  # here: few requests bring a picture

    broken = (
        OSError,
        SyntaxError,  # what Pillow raises for some broken files
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    )
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _PIXELS_MAX:
                raise PictureRefusedError("This picture has more than 25 million pixels.")
            upright = ImageOps.exif_transpose(image)
            fitted = ImageOps.fit(upright.convert("RGBA"), (EDGE, EDGE))
    except PictureRefusedError:
        raise
    except broken:
        raise PictureRefusedError("This is not a whole PNG, JPEG, WebP or GIF picture.") from None
    plain = Image.new("RGBA", (EDGE, EDGE))  # without the profile and the texts of the file
    plain.paste(fitted)
    made = BytesIO()
    plain.save(made, "PNG", optimize=True)
    return made.getvalue()


async def set_picture(db: Database, account_id: UUID, data: bytes, *, actor: Actor) -> None:
    """Give an account a picture.

    Raises:
        PictureRefusedError: see `square_png`.
    """
    picture = await asyncio.to_thread(square_png, data)
    async with db.transaction() as connection:
        await connection.execute(
            """INSERT INTO account_pictures (account_id, content_type, content) VALUES ($1, 'image/png', $2)
               ON CONFLICT (account_id)
               DO UPDATE SET content_type = excluded.content_type, content = excluded.content, changed_at = now()""",
            account_id,
            picture,
        )
        await activity.record(
            connection, account_id, actor, "account.picture_changed", "The picture was changed"
        )


async def remove_picture(db: Database, account_id: UUID, *, actor: Actor) -> None:
    """Take an account's picture away, if it has one."""
    async with db.transaction() as connection:
        if await connection.fetchval(
            "DELETE FROM account_pictures WHERE account_id = $1 RETURNING true", account_id
        ):
            await activity.record(
                connection, account_id, actor, "account.picture_removed", "The picture was removed"
            )
