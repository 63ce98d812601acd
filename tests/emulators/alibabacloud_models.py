"""What Model Studio documents of its models: the endpoint that serves each, and the bodies that it takes."""

from typing import Any

import jsonschema_rs

_URL: dict[str, Any] = {"type": "string", "pattern": "^(https?://|data:)"}
_TEXT: dict[str, Any] = {"type": "string"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_SEED: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_SIZE: dict[str, Any] = {"type": "string", "pattern": r"^[1-9][0-9]{2,3}\*[1-9][0-9]{2,3}$"}
_QWEN_SIZES = {"enum": ["1664*928", "1472*1104", "1328*1328", "1104*1472", "928*1664"]}
_RATIO: dict[str, Any] = {"enum": ["16:9", "9:16", "1:1", "4:3", "3:4"]}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _count(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _conversation(least: int, most: int, **parameters: Any) -> dict[str, Any]:
    """One message of some pictures and one text."""
    part = {"anyOf": [_object("text", text=_TEXT), _object("image", image=_URL)]}
    content = {
        "type": "array",
        "items": part,
        "minItems": least + 1,
        "maxItems": most + 1,
        "contains": {"required": ["text"]},
        "maxContains": 1,
    }
    message = _object("role content", role={"const": "user"}, content=content)
    messages = {"type": "array", "minItems": 1, "maxItems": 1, "items": message}
    return _object(
        "model input",
        model=_TEXT,
        input=_object("messages", messages=messages),
        parameters=_object(seed=_SEED, **parameters),
    )


def _media(least: int, **kinds: int) -> dict[str, Any]:
    """Files with their parts: how many there may be of each."""
    item = {
        **_object("type url", type={"enum": list(kinds)}, url=_URL, reference_voice=_URL),
        "if": {"required": ["reference_voice"]},
        "then": {"properties": {"type": {"pattern": "^reference_"}}},
    }
    most = [
        {"contains": {"properties": {"type": {"const": kind}}}, "minContains": 0, "maxContains": number}
        for kind, number in kinds.items()
    ]
    return {"type": "array", "items": item, "minItems": least, "allOf": most}


def _video(inputs: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    return _object(
        "model input",
        model=_TEXT,
        input=inputs,
        parameters=_object(seed=_SEED, watermark=_FLAG, **parameters),
    )


_DRAWN = {"negative_prompt": _TEXT, "prompt_extend": _FLAG, "watermark": _FLAG}
_WORDS = {"prompt": _TEXT, "negative_prompt": _TEXT}
_EXTEND = {"prompt_extend": _FLAG}
_TIERS = {"enum": ["720P", "1080P"]}
_ALL_TIERS = {"enum": ["480P", "720P", "1080P"]}
_EDIT = {
    "strength": {"type": "number", "minimum": 0, "maximum": 1},
    **{
        f"{side}_scale": {"type": "number", "minimum": 1, "maximum": 2}
        for side in ("top", "bottom", "left", "right")
    },
    "upscale_factor": _count(1, 4),
    "is_sketch": _FLAG,
}
_FUNCTIONS = (
    "stylization_all stylization_local description_edit description_edit_with_mask remove_watermark expand "
    "super_resolution colorization doodle control_cartoon_feature"
)
_WAN27_IMAGE = {
    "size": {"anyOf": [{"enum": ["1K", "2K", "4K"]}, _SIZE]},
    "n": _count(1, 4),
    "watermark": _FLAG,
    "enable_sequential": _FLAG,
    "thinking_mode": _FLAG,
    "bbox_list": {
        "type": "array",
        "items": {
            "type": "array",
            "maxItems": 2,
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
        },
    },
    "color_palette": {
        "type": "array",
        "minItems": 3,
        "maxItems": 10,
        "items": _object(
            "hex ratio", hex={"pattern": "^#[0-9A-Fa-f]{6}$"}, ratio={"pattern": r"^[0-9]+\.[0-9]{2}%$"}
        ),
    },
}
_WAN26_IMAGE: dict[str, Any] = {
    **_conversation(
        0, 4, **_DRAWN, size=_SIZE, n=_count(1, 4), enable_interleave=_FLAG, max_images=_count(1, 5)
    ),
    "if": {"properties": {"parameters": {"properties": {"enable_interleave": {"const": True}}}}},
    "then": {"properties": {"parameters": {"properties": {"n": {"const": 1}}}}},
    "else": {
        "properties": {
            "input": {"properties": {"messages": {"items": {"properties": {"content": {"minItems": 2}}}}}}
        }
    },
}
_HORSE = {"resolution": _TIERS, "duration": _count(3, 15)}

AT_ONCE = "multimodal-generation/generation"
DRAW = "image-generation/generation"
EDITS = "image2image/image-synthesis"
FILM = "video-generation/video-synthesis"
ANIMATE = "image2video/video-synthesis"

#: By model: the endpoint that serves it, and the bodies that it takes.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (AT_ONCE, _conversation(0, 0, **_DRAWN, size=_QWEN_SIZES, n={"const": 1}))
        for name in ("qwen-image", "qwen-image-plus", "qwen-image-max")
    },
    **{
        name: (AT_ONCE, _conversation(0, 3, **_DRAWN, size=_SIZE, n=_count(1, 6)))
        for name in ("qwen-image-2.0", "qwen-image-2.0-pro")
    },
    "qwen-image-edit": (AT_ONCE, _conversation(1, 3, **_DRAWN, n={"const": 1})),
    **{
        name: (AT_ONCE, _conversation(1, 3, **_DRAWN, size=_SIZE, n=_count(1, 6)))
        for name in ("qwen-image-edit-plus", "qwen-image-edit-max")
    },
    "z-image-turbo": (AT_ONCE, _conversation(0, 0, prompt_extend=_FLAG, size=_SIZE, n={"const": 1})),
    "wan2.6-t2i": (DRAW, _conversation(0, 0, **_DRAWN, size=_SIZE, n=_count(1, 4))),
    "wan2.6-image": (DRAW, _WAN26_IMAGE),
    "wan2.7-image": (DRAW, _conversation(0, 9, **_WAN27_IMAGE)),
    "wan2.7-image-pro": (DRAW, _conversation(0, 9, **_WAN27_IMAGE)),
    "wan2.5-i2i-preview": (
        EDITS,
        _video(
            _object(
                "prompt images",
                **_WORDS,
                images={"type": "array", "items": _URL, "minItems": 1, "maxItems": 3},
            ),
            **_EXTEND,
            size=_SIZE,
            n=_count(1, 4),
        ),
    ),
    "wanx2.1-imageedit": (
        EDITS,
        _video(
            _object(
                "prompt function base_image_url",
                prompt=_TEXT,
                function={"enum": _FUNCTIONS.split()},
                base_image_url=_URL,
                mask_image_url=_URL,
            ),
            **_EDIT,
            n=_count(1, 4),
        ),
    ),
    **{
        name: (
            ANIMATE,
            _video(
                _object("image_url video_url", image_url=_URL, video_url=_URL, watermark=_FLAG),
                mode={"enum": ["wan-std", "wan-pro"]},
            ),
        )
        for name in ("wan2.2-animate-move", "wan2.2-animate-mix")
    },
    **{
        name: (
            FILM,
            _video(
                _object("prompt", **_WORDS, audio_url=_URL),
                **_EXTEND,
                size=_SIZE,
                duration={"enum": durations},
            ),
        )
        for name, durations in (("wan2.5-t2v-preview", [5, 10]), ("wan2.6-t2v", [5, 10, 15]))
    },
    **{
        name: (
            FILM,
            _video(
                _object("img_url", **_WORDS, img_url=_URL, audio_url=_URL),
                **_EXTEND,
                resolution=tiers,
                duration={"enum": durations},
            ),
        )
        for name, tiers, durations in (
            ("wan2.5-i2v-preview", _ALL_TIERS, [5, 10]),
            ("wan2.6-i2v", _TIERS, [5, 10, 15]),
            ("wan2.6-i2v-flash", _TIERS, [5, 10, 15]),
        )
    },
    "wan2.7-t2v": (
        FILM,
        _video(
            _object("prompt", **_WORDS, audio_url=_URL),
            **_EXTEND,
            resolution=_TIERS,
            ratio=_RATIO,
            duration=_count(2, 15),
        ),
    ),
    "wan2.7-i2v-2026-04-25": (
        FILM,
        _video(
            _object(
                "media", **_WORDS, media=_media(1, first_frame=1, last_frame=1, driving_audio=1, first_clip=1)
            ),
            **_EXTEND,
            resolution=_TIERS,
            duration=_count(2, 15),
        ),
    ),
    "wan2.7-r2v": (
        FILM,
        _video(
            _object("prompt media", **_WORDS, media=_media(1, reference_image=5, reference_video=5)),
            **_EXTEND,
            resolution=_TIERS,
            ratio=_RATIO,
            duration=_count(2, 15),
        ),
    ),
    "wan2.7-videoedit": (
        FILM,
        _video(
            _object("media", **_WORDS, media=_media(1, video=1, reference_image=4)),
            **_EXTEND,
            resolution=_TIERS,
            ratio=_RATIO,
            duration=_count(1, 10),
            audio_setting={"enum": ["auto", "origin"]},
        ),
    ),
    "wan3.0-video": (
        FILM,
        _video(
            _object("prompt", **_WORDS, media=_media(1, first_frame=1, last_frame=1)),
            **_EXTEND,
            resolution=_ALL_TIERS,
            ratio=_RATIO,
            duration=_count(2, 30),
        ),
    ),
    **{
        f"happyhorse-{version}-t2v": (FILM, _video(_object("prompt", prompt=_TEXT), ratio=_RATIO, **_HORSE))
        for version in ("1.0", "1.1")
    },
    **{
        f"happyhorse-{version}-i2v": (
            FILM,
            _video(_object("media", prompt=_TEXT, media=_media(1, first_frame=1)), **_HORSE),
        )
        for version in ("1.0", "1.1")
    },
    "happyhorse-1.0-r2v": (
        FILM,
        _video(
            _object("prompt media", prompt=_TEXT, media=_media(1, reference_image=9, reference_video=16)),
            ratio=_RATIO,
            **_HORSE,
        ),
    ),
    "happyhorse-1.0-video-edit": (
        FILM,
        _video(
            _object("prompt media", prompt=_TEXT, media=_media(1, video=1, reference_image=5)),
            resolution=_TIERS,
            audio_setting={"enum": ["auto", "origin"]},
        ),
    ),
}
_VALIDATORS = {model: jsonschema_rs.validator_for(schema) for model, (_, schema) in MODELS.items()}


def complaints(body: dict[str, Any]) -> list[str]:
    """What the API has against a body."""
    return [
        f"{'.'.join(map(str, error.instance_path)) or 'body'}: {error.message}"
        for error in _VALIDATORS[str(body.get("model"))].iter_errors(body)
    ]
