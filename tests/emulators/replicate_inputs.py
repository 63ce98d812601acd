"""What models on Replicate take: the `Input` of their published schemas, as far as those were seen.

Written as JSON Schema in short. A model that is not here is taken at its word.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FILE: Schema = {"type": "string", "pattern": "^(https?://|data:)"}
FLAG: Schema = {"type": "boolean"}
SEED: Schema = {"type": "integer", "minimum": 0}


def _one_of(*values: str | int) -> Schema:
    return {"enum": list(values)}


def _int(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _files(most: int) -> Schema:
    return {"type": "array", "items": FILE, "maxItems": most}


def _model(*required: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {name: properties.get(name, TEXT) for name in (*required, *properties)},
        "required": list(required),
        "additionalProperties": False,
    }


_WIDE = ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "4:5", "5:4", "21:9", "9:21")
_RATIO = _one_of(*_WIDE)
_MATCHING = _one_of("match_input_image", *_WIDE, "2:1", "1:2")
_VEO_RATIO = _one_of("16:9", "9:16")
_KLING_RATIO = _one_of("16:9", "9:16", "1:1")
_GEN4_RATIO = _one_of("16:9", "9:16", "4:3", "3:4", "1:1", "21:9")
_PICTURE = _one_of("webp", "jpg", "png")
_JPG_PNG = _one_of("jpg", "png")
_CLIP_720_1080 = _one_of("720p", "1080p")
_FIVE_TEN = _one_of(5, 10)

_FLUX_2 = _model(
    "prompt",
    seed=SEED,
    width=_int(256, 2048),
    height=_int(256, 2048),
    resolution=_one_of("match_input_image", "0.5 MP", "1 MP", "2 MP", "4 MP"),
    aspect_ratio=_MATCHING,
    input_images=_files(8),
    output_format=_PICTURE,
    output_quality=_int(0, 100),
    safety_tolerance=_int(1, 5),
)
_SD_35 = _model(
    "prompt",
    cfg=_number(0, 20),
    seed=SEED,
    image=FILE,
    aspect_ratio=_RATIO,
    output_format=_PICTURE,
    negative_prompt=TEXT,
    prompt_strength=_number(0, 1),
)
_IDEOGRAM = {
    "mask": FILE,
    "seed": SEED,
    "image": FILE,
    "resolution": TEXT,
    "aspect_ratio": _one_of(*_WIDE[:9], "16:10", "10:16", "3:1", "1:3", "2:1", "1:2"),
    "magic_prompt_option": _one_of("Auto", "On", "Off"),
}
_IDEOGRAM_STYLE = ("None", "Auto", "General", "Realistic", "Design")
_VEO = {
    "aspect_ratio": _VEO_RATIO,
    "duration": _one_of(4, 6, 8),
    "generate_audio": FLAG,
    "image": FILE,
    "negative_prompt": TEXT,
    "resolution": _CLIP_720_1080,
    "seed": SEED,
}
_HAILUO = {
    "duration": _one_of(6, 10),
    "first_frame_image": FILE,
    "prompt_optimizer": FLAG,
}
_SEEDANCE_1 = {
    "aspect_ratio": _one_of("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "9:21"),
    "camera_fixed": FLAG,
    "duration": _int(2, 12),
    "fps": _one_of(24),
    "image": FILE,
    "resolution": _one_of("480p", "720p", "1080p"),
    "seed": SEED,
}
_PIXVERSE = {
    "aspect_ratio": _KLING_RATIO,
    "image": FILE,
    "last_frame_image": FILE,
    "negative_prompt": TEXT,
    "quality": _one_of("360p", "540p", "720p", "1080p"),
    "seed": SEED,
}
_KLING_3 = {
    "aspect_ratio": _KLING_RATIO,
    "duration": _int(3, 15),
    "start_image": FILE,
    "end_image": FILE,
    "generate_audio": FLAG,
    "mode": _one_of("standard", "pro"),
    "multi_prompt": TEXT,
}
_WAN_25 = {
    "audio": FILE,
    "duration": _FIVE_TEN,
    "enable_prompt_expansion": FLAG,
    "negative_prompt": TEXT,
    "seed": SEED,
}
_RAY_2 = _model(
    "prompt",
    aspect_ratio=_one_of("1:1", "3:4", "4:3", "9:16", "16:9", "9:21", "21:9"),
    duration=_one_of(5, 9),
    start_image=FILE,
    end_image=FILE,
    loop=FLAG,
)
_SORA = {
    "aspect_ratio": _one_of("portrait", "landscape"),
    "input_reference": FILE,
    "openai_api_key": TEXT,
    "seconds": _one_of(4, 8, 12),
}
_GPT_IMAGE = {
    "quality": _one_of("low", "medium", "high", "auto"),
    "background": _one_of("auto", "transparent", "opaque"),
    "moderation": _one_of("auto", "low"),
    "aspect_ratio": _one_of("1:1", "3:2", "2:3"),
    "input_images": _files(16),
    "output_format": _one_of("png", "jpeg", "webp"),
    "input_fidelity": _one_of("low", "high"),
    "number_of_images": _int(1, 10),
    "output_compression": _int(0, 100),
    "user_id": TEXT,
}
_SEEDREAM = {
    "max_images": _int(1, 15),
    "image_input": _files(14),
    "aspect_ratio": _one_of("match_input_image", "1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9"),
    "sequential_image_generation": _one_of("disabled", "auto"),
}

INPUTS: dict[str, Schema] = {
    "black-forest-labs/flux-schnell": _model(
        "prompt",
        aspect_ratio=_RATIO,
        num_outputs=_int(1, 4),
        num_inference_steps=_int(1, 4),
        seed=SEED,
        output_format=_PICTURE,
        output_quality=_int(0, 100),
        disable_safety_checker=FLAG,
        go_fast=FLAG,
        megapixels=_one_of("1", "0.25"),
    ),
    "black-forest-labs/flux-dev": _model(
        "prompt",
        image=FILE,
        seed=SEED,
        go_fast=FLAG,
        guidance=_number(0, 10),
        megapixels=_one_of("1", "0.25"),
        num_outputs=_int(1, 4),
        aspect_ratio=_RATIO,
        output_format=_PICTURE,
        output_quality=_int(0, 100),
        prompt_strength=_number(0, 1),
        num_inference_steps=_int(1, 50),
        disable_safety_checker=FLAG,
    ),
    "black-forest-labs/flux-1.1-pro-ultra": _model(
        "prompt",
        raw=FLAG,
        seed=SEED,
        aspect_ratio=_RATIO,
        image_prompt=FILE,
        image_prompt_strength=_number(0, 1),
        output_format=_JPG_PNG,
        safety_tolerance=_int(1, 6),
    ),
    "black-forest-labs/flux-2-pro": _FLUX_2,
    "black-forest-labs/flux-2-max": _FLUX_2,
    "black-forest-labs/flux-fill-pro": _model(
        "prompt",
        "image",
        image=FILE,
        mask=FILE,
        seed=SEED,
        steps=_int(1, 50),
        guidance=_number(0, 100),
        outpaint=TEXT,
        output_format=_JPG_PNG,
        safety_tolerance=_int(1, 6),
        prompt_upsampling=FLAG,
    ),
    "black-forest-labs/flux-kontext-pro": _model(
        "prompt",
        seed=SEED,
        input_image=FILE,
        aspect_ratio=_MATCHING,
        output_format=_JPG_PNG,
        safety_tolerance=_int(0, 6),
        prompt_upsampling=FLAG,
    ),
    "openai/gpt-image-1": _model("prompt", "openai_api_key", **_GPT_IMAGE),
    "openai/gpt-image-1.5": _model("prompt", openai_api_key=TEXT, **_GPT_IMAGE),
    "ideogram-ai/ideogram-v2-turbo": _model(
        "prompt",
        negative_prompt=TEXT,
        style_type=_one_of(*_IDEOGRAM_STYLE, "Render 3D", "Anime"),
        **_IDEOGRAM,
    ),
    "ideogram-ai/ideogram-v3-turbo": _model(
        "prompt",
        style_type=_one_of(*_IDEOGRAM_STYLE),
        style_preset=TEXT,
        style_reference_images=_files(3),
        **_IDEOGRAM,
    ),
    "google/imagen-4-fast": _model(
        "prompt",
        aspect_ratio=_one_of("1:1", "9:16", "16:9", "3:4", "4:3"),
        output_format=_JPG_PNG,
        safety_filter_level=_one_of("block_low_and_above", "block_medium_and_above", "block_only_high"),
    ),
    "google/nano-banana-2": _model(
        "prompt",
        resolution=_one_of("1K", "2K", "4K"),
        image_input=_files(14),
        aspect_ratio=_one_of("match_input_image", *_WIDE[:10], "1:4", "4:1", "1:8", "8:1"),
        image_search=FLAG,
        google_search=FLAG,
        output_format=_JPG_PNG,
    ),
    "minimax/image-01": _model(
        "prompt",
        aspect_ratio=_RATIO,
        number_of_images=_int(1, 9),
        prompt_optimizer=FLAG,
        subject_reference=FILE,
    ),
    "luma/photon-flash": _model("prompt", seed=SEED, aspect_ratio=_RATIO, image_reference=FILE),
    "qwen/qwen-image-edit": _model(
        "prompt",
        "image",
        image=FILE,
        seed=SEED,
        output_format=_PICTURE,
        output_quality=_int(0, 100),
        go_fast=FLAG,
    ),
    "recraft-ai/recraft-v3": _model("prompt", size=TEXT, style=TEXT, aspect_ratio=TEXT),
    "bytedance/seedream-4": _model(
        "prompt",
        size=_one_of("1K", "2K", "4K", "custom"),
        width=_int(1024, 4096),
        height=_int(1024, 4096),
        enhance_prompt=FLAG,
        **_SEEDREAM,
    ),
    "bytedance/seedream-5-lite": _model(
        "prompt", size=_one_of("2K", "3K"), output_format=_one_of("png", "jpeg"), **_SEEDREAM
    ),
    "stability-ai/stable-diffusion-3.5-large": _SD_35,
    "stability-ai/stable-diffusion-3.5-large-turbo": _SD_35,
    "stability-ai/stable-diffusion-3.5-medium": _SD_35,
    "minimax/video-01": _model(
        "prompt", first_frame_image=FILE, prompt_optimizer=FLAG, subject_reference=FILE
    ),
    "minimax/video-01-live": _model(
        "prompt", "first_frame_image", first_frame_image=FILE, prompt_optimizer=FLAG
    ),
    "minimax/hailuo-02": _model(
        "prompt", resolution=_one_of("512p", "768p", "1080p"), last_frame_image=FILE, **_HAILUO
    ),
    "minimax/hailuo-2.3": _model("prompt", resolution=_one_of("768p", "1080p"), **_HAILUO),
    "minimax/hailuo-2.3-fast": _model(
        "prompt", "first_frame_image", resolution=_one_of("768p", "1080p"), **_HAILUO
    ),
    "google/veo-2": _model(
        "prompt", aspect_ratio=_VEO_RATIO, duration=_one_of(5, 6, 7, 8), image=FILE, seed=SEED
    ),
    "google/veo-3": _model("prompt", **_VEO),
    "google/veo-3-fast": _model("prompt", **_VEO),
    "google/veo-3.1": _model("prompt", last_frame=FILE, reference_images=_files(3), **_VEO),
    "runwayml/gen-4.5": _model("prompt", aspect_ratio=_GEN4_RATIO, duration=_FIVE_TEN, image=FILE, seed=SEED),
    "runwayml/gen4-turbo": _model(
        "prompt", "image", aspect_ratio=_GEN4_RATIO, duration=_FIVE_TEN, image=FILE, seed=SEED
    ),
    "runwayml/gen4-aleph": _model(
        "prompt", "video", video=FILE, aspect_ratio=_GEN4_RATIO, reference_image=FILE, seed=SEED
    ),
    "kwaivgi/kling-v2.1": _model(
        "prompt",
        "start_image",
        start_image=FILE,
        end_image=FILE,
        duration=_FIVE_TEN,
        mode=_one_of("standard", "pro"),
        negative_prompt=TEXT,
    ),
    "kwaivgi/kling-v2.5-turbo-pro": _model(
        "prompt",
        aspect_ratio=_KLING_RATIO,
        duration=_FIVE_TEN,
        start_image=FILE,
        end_image=FILE,
        negative_prompt=TEXT,
    ),
    "kwaivgi/kling-v2.6": _model(
        "prompt",
        aspect_ratio=_KLING_RATIO,
        duration=_FIVE_TEN,
        start_image=FILE,
        generate_audio=FLAG,
        negative_prompt=TEXT,
    ),
    "kwaivgi/kling-v3-video": _model("prompt", negative_prompt=TEXT, **_KLING_3),
    "kwaivgi/kling-v3-omni-video": _model(
        "prompt",
        reference_images=_files(7),
        reference_video=FILE,
        keep_original_sound=FLAG,
        video_reference_type=_one_of("feature", "base"),
        **_KLING_3,
    ),
    "pixverse/pixverse-v5": _model("prompt", duration=_one_of(5, 8), effect=TEXT, **_PIXVERSE),
    "pixverse/pixverse-v5.6": _model(
        "prompt", duration=_one_of(5, 8, 10), generate_audio_switch=FLAG, thinking_type=TEXT, **_PIXVERSE
    ),
    "wan-video/wan-2.5-t2v": _model(
        "prompt",
        size=_one_of("832*480", "480*832", "1280*720", "720*1280", "1920*1080", "1080*1920"),
        **_WAN_25,
    ),
    "wan-video/wan-2.5-i2v": _model(
        "prompt", "image", image=FILE, resolution=_one_of("480p", "720p", "1080p"), **_WAN_25
    ),
    "bytedance/seedance-1-pro": _model("prompt", last_frame_image=FILE, **_SEEDANCE_1),
    "bytedance/seedance-1-lite": _model(
        "prompt", last_frame_image=FILE, reference_images=_files(4), **_SEEDANCE_1
    ),
    "bytedance/seedance-1-pro-fast": _model("prompt", **_SEEDANCE_1),
    "bytedance/seedance-2.0-fast": _model(
        "prompt",
        image=FILE,
        last_frame_image=FILE,
        reference_images=_files(9),
        reference_videos=_files(3),
        reference_audios=_files(3),
        duration=_int(-1, 15),
        resolution=_one_of("480p", "720p"),
        aspect_ratio=_one_of("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "9:21", "adaptive"),
        generate_audio=FLAG,
        seed=SEED,
    ),
    "luma/ray-2-540p": _RAY_2,
    "luma/ray-2-720p": _RAY_2,
    "luma/ray-flash-2-540p": _RAY_2,
    "luma/ray-flash-2-720p": _RAY_2,
    "openai/sora-2": _model("prompt", **_SORA),
    "openai/sora-2-pro": _model("prompt", resolution=_one_of("standard", "high"), **_SORA),
}
