"""ComfyUI's API behind a proxy that wants a key: prompts, the queue, the history, uploads, files, the system.

It knows the nodes and model files that the templates use and refuses others as ComfyUI does. Beside the checklist a
prompt may hold `[comfyui:<word>]`: `interrupted`, `bad-picture`, `previews`, `gifs`, `gateway`.
"""

import io
import re
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from aiohttp import web
from PIL import Image
from tests.emulators.kit import (
    DroppedError,
    EmulatedJob,
    Emulator,
    Misbehavior,
    Received,
    asked_for,
    json,
)

_OWN_WORDS = re.compile(r"\[comfyui:([a-z-]+)\]")
_STARTED_MS = 1_795_400_100_000
_ROUNDS_MAX = 10_000

#: What a node takes: a link to another's output by its type, a value's type, or a list of values.
_FILES = {
    "diffusion_models": (
        "flux1-schnell.safetensors",
        "flux1-dev.safetensors",
        "flux1-krea-dev_fp8_scaled.safetensors",
        "qwen_image_fp8_e4m3fn.safetensors",
        "qwen_image_2512_fp8_e4m3fn.safetensors",
        "z_image_turbo_bf16.safetensors",
        *(
            f"wan2.2_{way}_{half}_noise_14B_fp8_scaled.safetensors"
            for way in ("t2v", "i2v")
            for half in ("high", "low")
        ),
    ),
    "checkpoints": (
        "sd3.5_large.safetensors",
        "sd3.5_large_turbo.safetensors",
        "sd3.5_medium.safetensors",
    ),
    "text_encoders": (
        "clip_l.safetensors",
        "clip_g.safetensors",
        "t5xxl_fp8_e4m3fn_scaled.safetensors",
        "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "qwen_3_4b.safetensors",
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    ),
    "vae": ("ae.safetensors", "qwen_image_vae.safetensors", "wan_2.1_vae.safetensors"),
    "loras": tuple(
        f"wan2.2_{way}_lightx2v_4steps_lora_{version}_{half}_noise.safetensors"
        for way, version in (("t2v", "v1.1"), ("i2v", "v1"))
        for half in ("high", "low")
    ),
}
_SAMPLERS = ("euler", "uni_pc", "res_multistep")
_SCHEDULERS = ("simple", "normal", "sgm_uniform")
_SIDE = ("INT", 16, 16384)
_SEED = ("INT", 0, 2**64 - 1)
_STEPS = ("INT", 1, _ROUNDS_MAX)
_SWITCH = ("enable", "disable")
_SAMPLING: dict[str, Any] = {
    "model": "MODEL",
    "positive": "CONDITIONING",
    "negative": "CONDITIONING",
    "latent_image": "LATENT",
    "steps": _STEPS,
    "cfg": ("FLOAT", 0.0, 100.0),
    "sampler_name": _SAMPLERS,
    "scheduler": _SCHEDULERS,
}
_BATCH = {"width": _SIDE, "height": _SIDE, "batch_size": ("INT", 1, 4096)}
#: By class: the outputs' types, and the inputs.
NODES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "UNETLoader": (
        ("MODEL",),
        {"unet_name": _FILES["diffusion_models"], "weight_dtype": ("default", "fp8_e4m3fn")},
    ),
    "CheckpointLoaderSimple": (("MODEL", "CLIP", "VAE"), {"ckpt_name": _FILES["checkpoints"]}),
    "CLIPLoader": (
        ("CLIP",),
        {"clip_name": _FILES["text_encoders"], "type": ("qwen_image", "lumina2", "wan")},
    ),
    "DualCLIPLoader": (
        ("CLIP",),
        {
            "clip_name1": _FILES["text_encoders"],
            "clip_name2": _FILES["text_encoders"],
            "type": ("flux", "sdxl"),
        },
    ),
    "TripleCLIPLoader": (("CLIP",), {f"clip_name{place}": _FILES["text_encoders"] for place in (1, 2, 3)}),
    "VAELoader": (("VAE",), {"vae_name": _FILES["vae"]}),
    "LoraLoaderModelOnly": (
        ("MODEL",),
        {"model": "MODEL", "lora_name": _FILES["loras"], "strength_model": ("FLOAT", -100.0, 100.0)},
    ),
    "ModelSamplingSD3": (("MODEL",), {"model": "MODEL", "shift": ("FLOAT", 0.0, 100.0)}),
    "ModelSamplingAuraFlow": (("MODEL",), {"model": "MODEL", "shift": ("FLOAT", 0.0, 100.0)}),
    "CLIPTextEncode": (("CONDITIONING",), {"text": "STRING", "clip": "CLIP"}),
    "ConditioningZeroOut": (("CONDITIONING",), {"conditioning": "CONDITIONING"}),
    "FluxGuidance": (("CONDITIONING",), {"conditioning": "CONDITIONING", "guidance": ("FLOAT", 0.0, 100.0)}),
    "EmptySD3LatentImage": (("LATENT",), _BATCH),
    "EmptyHunyuanLatentVideo": (("LATENT",), {**_BATCH, "length": ("INT", 1, 16384)}),
    "LoadImage": (("IMAGE", "MASK"), {"image": "STRING"}),
    "ImageScale": (
        ("IMAGE",),
        {
            "image": "IMAGE",
            "upscale_method": ("lanczos", "bilinear"),
            "width": _SIDE,
            "height": _SIDE,
            "crop": ("disabled", "center"),
        },
    ),
    "VAEEncode": (("LATENT",), {"pixels": "IMAGE", "vae": "VAE"}),
    "VAEDecode": (("IMAGE",), {"samples": "LATENT", "vae": "VAE"}),
    "WanImageToVideo": (
        ("CONDITIONING", "CONDITIONING", "LATENT"),
        {
            **_BATCH,
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "vae": "VAE",
            "start_image": "IMAGE",
            "length": ("INT", 1, 16384),
        },
    ),
    "KSampler": (("LATENT",), {**_SAMPLING, "seed": _SEED, "denoise": ("FLOAT", 0.0, 1.0)}),
    "KSamplerAdvanced": (
        ("LATENT",),
        {
            **_SAMPLING,
            "noise_seed": _SEED,
            "add_noise": _SWITCH,
            "return_with_leftover_noise": _SWITCH,
            "start_at_step": ("INT", 0, _ROUNDS_MAX),
            "end_at_step": ("INT", 0, _ROUNDS_MAX),
        },
    ),
    "SaveImage": ((), {"images": "IMAGE", "filename_prefix": "STRING"}),
    "CreateVideo": (("VIDEO",), {"images": "IMAGE", "fps": ("FLOAT", 1.0, 120.0)}),
    "SaveVideo": (
        (),
        {"video": "VIDEO", "filename_prefix": "STRING", "format": ("auto", "mp4"), "codec": ("auto", "h264")},
    ),
}


def complaints(graph: Any, uploaded: Collection[str] = ()) -> list[tuple[str, str, str]]:
    """What ComfyUI has against a graph: node, input and type of the error. An unknown class is the whole's fault."""
    if not isinstance(graph, dict) or not graph:
        return [("", "", "no_prompt")]
    found: list[tuple[str, str, str]] = []
    for number, node in graph.items():
        if node.get("class_type") not in NODES:
            return [(number, "", "invalid_prompt")]
        _, inputs = NODES[node["class_type"]]
        for name, wanted in inputs.items():
            if name not in node["inputs"]:
                found.append((number, name, "required_input_missing"))
            elif fault := _fault(graph, node["inputs"][name], wanted):
                found.append((number, name, fault))
        if node["class_type"] == "LoadImage" and node["inputs"].get("image") not in uploaded:
            found.append((number, "image", "custom_validation_failed"))
    if not any(node["class_type"].startswith("Save") for node in graph.values()):
        found.append(("", "", "prompt_no_outputs"))
    return found


def _fault(graph: dict[str, Any], value: Any, wanted: Any) -> str | None:
    if wanted == "STRING":
        return None if isinstance(value, str) else "invalid_input_type"
    if isinstance(wanted, str):
        if not isinstance(value, list) or len(value) != 2 or value[0] not in graph:
            return "bad_linked_input"
        outputs, _ = NODES.get(graph[value[0]].get("class_type"), ((), {}))
        return None if value[1] < len(outputs) and outputs[value[1]] == wanted else "return_type_mismatch"
    if wanted[0] not in ("INT", "FLOAT"):
        return None if value in wanted else "value_not_in_list"
    if isinstance(value, bool) or not isinstance(value, int if wanted[0] == "INT" else int | float):
        return "invalid_input_type"
    if value < wanted[1]:
        return "value_smaller_than_min"
    return "value_bigger_than_max" if value > wanted[2] else None


class ComfyUIEmulator(Emulator):
    """One worker: prompts run in turn and are in the history when the queue was looked at often enough."""

    provider: ClassVar[str] = "comfyui"

    def __init__(self) -> None:
        super().__init__()
        self.uploaded: dict[str, bytes] = {}

    def routes(self) -> list[web.RouteDef]:
        """The API, without the sockets."""
        return [
            web.post("/prompt", self.prompt),
            web.get("/queue", self.queue),
            web.post("/queue", self.change_queue),
            web.post("/interrupt", self.interrupt),
            web.post("/api/jobs/{id}/cancel", self.cancel),
            web.get("/history/{id}", self.history),
            web.post("/upload/image", self.upload),
            web.get("/view", self.view),
            web.get("/system_stats", self.stats),
        ]

    async def receive(self, request: web.Request) -> Received:
        """Nothing passes the proxy without the key."""
        received = await super().receive(request)
        if not self.authorized(request):
            raise web.HTTPUnauthorized(text="401 Authorization Required", content_type="text/plain")
        return received

    async def prompt(self, request: web.Request) -> web.StreamResponse:
        """`POST /prompt`."""
        received = await self.receive(request)
        graph = received.body.get("prompt")
        prompt = " ".join(_texts(graph))
        refusal = _refusal(asked_for(prompt), prompt)
        if refusal is not None:
            return refusal
        faults = complaints(graph, self.uploaded)
        if faults:
            return _invalid(graph, faults)
        id = str(received.body.get("prompt_id") or f"made-here-{self.number()}")
        nodes = [node["class_type"] for node in graph.values()]
        batches = [node["inputs"]["batch_size"] for node in graph.values() if "batch_size" in node["inputs"]]
        media = "video" if "SaveVideo" in nodes else "image"
        job = self.new_job(id, prompt, received, media=media, count=max(batches, default=1))
        if job.behavior is Misbehavior.ANSWER_DROPPED:
            raise DroppedError
        return json(200, {"prompt_id": id, "number": self.number(), "node_errors": {}})

    async def queue(self, request: web.Request) -> web.StreamResponse:
        """`GET /queue`."""
        await self.receive(request)
        for job in self._waiting():
            if not job.extra.get("ended") and (job.canceled or self.is_done(job)):
                job.extra["ended"] = True
        items = [[1, job.id, job.request.body["prompt"], {}, ["9"]] for job in self._waiting()]
        return json(200, {"queue_running": items[:1], "queue_pending": items[1:]})

    def _waiting(self) -> list[EmulatedJob]:
        """What a restart has not taken, and what has not ended."""
        return [
            job
            for job in self.jobs.values()
            if not job.extra.get("ended")
            and not job.extra.get("deleted")
            and job.behavior is not Misbehavior.LOST_JOB
        ]

    async def change_queue(self, request: web.Request) -> web.StreamResponse:
        """`POST /queue`: takes away what waits, and never says whether it did."""
        received = await self.receive(request)
        for job in self._waiting()[1:]:
            if job.id in received.body.get("delete", []):
                job.extra["deleted"] = True
        return web.Response(status=200)

    async def interrupt(self, request: web.Request) -> web.StreamResponse:
        """`POST /interrupt`: of one prompt, if that runs."""
        received = await self.receive(request)
        for job in self._waiting()[:1]:
            job.canceled = job.id == received.body["prompt_id"]
        return web.Response(status=200)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/jobs/{id}/cancel`."""
        await self.receive(request)
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return json(404, {"error": "Job not found"})
        job.canceled = True
        return json(200, {})

    async def history(self, request: web.Request) -> web.StreamResponse:
        """`GET /history/{id}`."""
        await self.receive(request)
        job = self.jobs.get(request.match_info["id"])
        if job is None or not job.extra.get("ended"):
            return json(200, {})
        return json(200, {job.id: self._entry(job)})

    def _entry(self, job: EmulatedJob) -> dict[str, Any]:
        start = ["execution_start", {"prompt_id": job.id, "timestamp": _STARTED_MS}]
        failure = _failure(job)
        prompt = [12, job.id, job.request.body["prompt"], {}, ["9"]]
        if failure is not None:
            status = {"status_str": "error", "completed": False, "messages": [start, failure]}
            return {"prompt": prompt, "outputs": {}, "status": status, "meta": {}}
        end = ["execution_success", {"prompt_id": job.id, "timestamp": _STARTED_MS + 2500}]
        status = {"status_str": "success", "completed": True, "messages": [start, end]}
        return {"prompt": prompt, "outputs": _outputs(job), "status": status, "meta": {}}

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """`POST /upload/image`."""
        received = await self.receive(request)
        [(name, _, data)] = received.body["image"]
        [folder] = received.body.get("subfolder", [""])
        self.uploaded[f"{folder}/{name}" if folder else name] = data
        return json(200, {"name": name, "subfolder": folder, "type": "input"})

    async def view(self, request: web.Request) -> web.StreamResponse:
        """`GET /view`, with conversion."""
        received = await self.receive(request)
        id = received.query["filename"].partition("_")[0]
        job = self.jobs.get(id)
        if job is None or job.behavior is Misbehavior.EXPIRED_OUTPUT:
            return web.Response(status=404)
        self.files_fetched += 1
        data = self.file(job)
        if "preview" not in received.query:
            return web.Response(body=data)
        if job.behavior is Misbehavior.BROKEN_OUTPUT:
            return web.Response(status=500, text="500 Internal Server Error")
        format, quality = received.query["preview"].split(";")
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(file, format, quality=int(quality))
        return web.Response(body=file.getvalue(), content_type=f"image/{format}")

    async def stats(self, request: web.Request) -> web.StreamResponse:
        """`GET /system_stats`."""
        await self.receive(request)
        system = {"os": "posix", "comfyui_version": "0.3.65", "python_version": "3.12"}
        return json(200, {"system": system, "devices": [{"name": "cuda:0 A GPU", "type": "cuda"}]})

    def submits(self) -> list[Received]:
        """Prompts."""
        return [request for request in super().submits() if request.path == "/prompt"]


def _texts(graph: Any) -> Iterator[str]:
    for node in graph.values() if isinstance(graph, dict) else ():
        text = node.get("inputs", {}).get("text")
        if isinstance(text, str):
            yield text


def _own_word(prompt: str) -> str | None:
    found = _OWN_WORDS.search(prompt)
    return found[1] if found else None


def _refusal(behavior: Misbehavior | None, prompt: str) -> web.StreamResponse | None:
    match behavior:
        case Misbehavior.REQUEST_DROPPED:
            raise DroppedError
        case Misbehavior.GARBAGE:
            return web.Response(text="<html>a proxy says hello</html>", content_type="text/html")
        case Misbehavior.BAD_KEY:
            return web.Response(status=401, text="401 Authorization Required", content_type="text/plain")
        case Misbehavior.BAD_INPUT:
            graph = {"4": {"class_type": "CheckpointLoaderSimple"}}
            return _invalid(graph, [("4", "ckpt_name", "value_not_in_list")])
    if _own_word(prompt) == "gateway":
        return web.Response(status=504, text="504 Gateway Time-out", content_type="text/plain")
    return None


def _invalid(graph: Any, faults: list[tuple[str, str, str]]) -> web.Response:
    whole = next((fault for number, name, fault in faults if not name), "prompt_outputs_failed_validation")
    nodes: dict[str, Any] = {}
    for number, name, fault in faults:
        if name:
            node = nodes.setdefault(
                number, {"errors": [], "dependent_outputs": ["9"], "class_type": graph[number]["class_type"]}
            )
            beside = {"message": fault.replace("_", " "), "details": name, "extra_info": {"input_name": name}}
            node["errors"].append({"type": fault, **beside})
    error = {"type": whole, "message": whole.replace("_", " "), "details": "", "extra_info": {}}
    return json(400, {"error": error, "node_errors": nodes})


def _failure(job: EmulatedJob) -> list[Any] | None:
    about = {"prompt_id": job.id, "timestamp": _STARTED_MS + 2500, "executed": []}
    error = {**about, "node_id": "3", "node_type": "KSampler", "traceback": [], "current_inputs": {}}
    match job.behavior, _own_word(job.prompt):
        case Misbehavior.INTERNAL_ERROR, _:
            message = "mat1 and mat2 shapes cannot be multiplied"
            return [
                "execution_error",
                {**error, "exception_message": message, "exception_type": "RuntimeError"},
            ]
        case Misbehavior.NO_CAPACITY, _:
            kind = "torch.OutOfMemoryError"
            return ["execution_error", {**error, "exception_message": "CUDA", "exception_type": kind}]
        case _, "bad-picture":
            kind = "PIL.UnidentifiedImageError"
            error |= {
                "node_type": "LoadImage",
                "exception_type": kind,
                "exception_message": "cannot identify",
            }
            return ["execution_error", error]
    return (
        ["execution_interrupted", about] if job.canceled or _own_word(job.prompt) == "interrupted" else None
    )


def _outputs(job: EmulatedJob) -> dict[str, Any]:
    if job.behavior is Misbehavior.NO_OUTPUT:
        return {}
    if job.media == "video":
        key = "gifs" if _own_word(job.prompt) == "gifs" else "images"
        file = {"filename": f"{job.id}_00001_.mp4", "subfolder": "babysea", "type": "output"}
        return {"17": {key: [file], "animated": [True]}}
    count = 1 if job.behavior is Misbehavior.PARTIAL_BATCH else job.count
    names = [f"{job.id}_{index + 1:05d}_.png" for index in range(count)]
    previews = {"images": [{"filename": f"{job.id}_temp_1_.png", "subfolder": "", "type": "temp"}]}
    if _own_word(job.prompt) == "previews":
        return {"8": previews}
    saved = [{"filename": name, "subfolder": "babysea", "type": "output"} for name in names]
    return {"8": previews, "9": {"images": saved}}
