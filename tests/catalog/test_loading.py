"""Loading: the shipped data is sound, operators lay theirs over it, and every fault is told."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from babysea_server.catalog.catalog import Catalog, CatalogError, load_catalog
from babysea_server.catalog.markup import Markup
from babysea_server.catalog.pricing import quote
from babysea_server.errors import ApiError

Overrides = Callable[[dict[str, str]], Path]


def faults_of(overrides: Path | None, markup: Markup | None = None) -> tuple[str, ...]:
    with pytest.raises(CatalogError) as caught:
        load_catalog(overrides, markup)
    assert str(caught.value).count("\n") == len(caught.value.faults)
    return caught.value.faults


def one_fault(overrides: Path) -> str:
    (fault,) = faults_of(overrides)
    return fault.removeprefix(f"{overrides}/")


def test_shipped_catalog_has_all_models_and_providers(catalog: Catalog) -> None:
    assert len(catalog.all_models) == 156 + 2
    assert list(catalog.models) == sorted(catalog.models)
    assert set(catalog.providers) == {
        "alibabacloud", "bfl", "byteplus", "cloudflare", "fal", "openai", "replicate", "runway", "sandbox",
    }  # fmt: skip
    assert all(model.provider_ids for model in catalog.all_models.values())


def test_retired_pairs_are_left_out(catalog: Catalog) -> None:
    assert catalog.model("gpt/image-1").provider_ids == ("replicate", "fal")
    assert "openai" not in catalog.model("sora/2-pro").providers


def test_facts_for_execution_are_kept(catalog: Catalog) -> None:
    hailuo = catalog.model("minimax/hailuo-02").providers["fal"]
    assert hailuo.models_by_workflow["image-to-video"].endswith("standard/image-to-video")
    assert hailuo.models_by_resolution["1080p"]["text-to-video"].endswith("pro/text-to-video")
    assert catalog.model("kling/v2.1-pro").providers["replicate"].fixed_params == {"mode": "pro"}
    assert catalog.model("runway/gen-4.5").providers["runway"].ratio_map["16:9"] == "1280:720"
    assert catalog.model("sora/2-pro").providers["replicate"].value_map["generation_resolution"] == {
        "720p": "standard", "1080p": "high",
    }  # fmt: skip
    mini = catalog.model("gpt/image-1-mini").providers["openai"]
    assert mini.deprecated_on is not None
    assert mini.deprecated_on.isoformat() == "2026-12-01"


def test_unpriced_model_is_loaded_and_not_offered(catalog: Catalog) -> None:
    assert not catalog.all_models["nvidia/sana"].offered
    assert "nvidia/sana" not in catalog.models
    with pytest.raises(ApiError) as caught:
        catalog.model("nvidia/sana")
    assert caught.value.spec.code == "BSE2011"


def test_alias_names_the_same_model(catalog: Catalog) -> None:
    assert catalog.model("black-forest-labs/flux-schnell") is catalog.model("bfl/flux-schnell")


def test_unknown_model_404_suggests_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(ApiError) as caught:
        catalog.model("bfl/flux-schnel")
    assert caught.value.spec.code == "BSE2011"
    assert "'bfl/flux-schnell'" in caught.value.message
    with pytest.raises(ApiError) as caught:
        catalog.model("acme/nothing-of-the-kind")
    assert "/v1/library/models" in caught.value.message


def test_wrong_media_400_tells_the_right_path(catalog: Catalog) -> None:
    with pytest.raises(ApiError) as caught:
        catalog.model_for("bfl/flux-schnell", "video")
    assert caught.value.spec.code == "BSE2012"
    assert "/v1/generate/image/bfl/flux-schnell" in caught.value.message
    assert catalog.model_for("google/veo-3", "video").media == "video"


def test_operator_prices_a_model(overrides: Overrides) -> None:
    catalog = load_catalog(overrides({"models/nvidia.toml": "[sana]\npricing = 0.004\n"}))
    sana = catalog.model("nvidia/sana")
    assert sana.pricing == Decimal("0.004")
    assert sana.lab == "NVIDIA"
    assert quote(sana, {}).cost_micro == 4000


def test_operator_changes_one_providers_cost_alone(overrides: Overrides) -> None:
    text = "[flux-schnell.providers.fal]\nusd = 0.0029\n"
    fal = load_catalog(overrides({"models/bfl.toml": text})).model("bfl/flux-schnell").providers["fal"]
    assert fal.usd == Decimal("0.0029")
    assert fal.model == "fal-ai/flux/schnell"


def test_operator_takes_a_provider_out(overrides: Overrides) -> None:
    text = '[flux-schnell]\nprovider_order = ["fal"]\n'
    model = load_catalog(overrides({"models/bfl.toml": text})).model("bfl/flux-schnell")
    assert model.provider_ids == ("fal",)


def test_operator_adds_lab_provider_and_model(overrides: Overrides) -> None:
    directory = overrides(
        {
            "providers.toml": '[home]\nname = "Home"\ndescription = "Own"\n',
            "fields.toml": '[generation_mood]\ntype = "string"\ndescription = "Mood."\n',
            "models/acme.toml": """
                lab = "Acme"
                [one]
                media = "image"
                name = "One"
                description = "The first."
                workflows = ["text-to-image"]
                pricing = 1
                pricing_unit = "generation"
                provider_order = ["home"]
                [one.fields]
                generation_prompt = {}
                generation_mood = {}
                [one.providers.home]
                model = "one"
            """,
        }
    )
    model = load_catalog(directory).model("acme/one")
    assert (model.lab, model.specific_schema) == ("Acme", ("generation_mood",))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[flux-schnell]\npricing = -1\n", "pricing: a price is at least 0.000001 credits, not -1"),
        ("[flux-schnell]\npricing = 0\n", "pricing: a price is at least 0.000001 credits, not 0"),
        ("[flux-schnell]\npricing = nan\n", "pricing: a price is at least 0.000001 credits, not NaN"),
        ("[flux-schnell]\nprising = 1\n", "prising: is not a known key"),
        ("[flux-schnell]\nname = 1\n", "name: Expected `str`, got `int`"),
        ('[flux-schnell]\nmedia = "sound"\n', "media: Invalid enum value 'sound'"),
        ('[flux-schnell]\nprovider_order = ["acme"]\n', "provider_order: acme has no table"),
        ('[flux-schnell]\nprovider_order = ["fal", "fal"]\n', "provider_order: names a provider twice"),
        ("[flux-schnell]\nprovider_order = []\n", "provider_order: is empty"),
        (
            '[flux-schnell]\naliases = ["bfl/flux-dev"]\n',
            "aliases: 'bfl/flux-dev' already names bfl/flux-dev",
        ),
        ('[flux-schnell]\naliases = ["Flux"]\n', "aliases: 'Flux' is not an identifier"),
        ("[flux-schnell.fields]\ngeneration_seeed = {}\n", "did you mean generation_seed?"),
        ("[flux-schnell.fields]\ngeneration_seed = 1\n", "fields.generation_seed: is not a table"),
        (
            '[flux-schnell.fields]\ngeneration_ratio = { default = "2:1" }\n',
            "fields.generation_ratio: the default '2:1' is not in `enum`",
        ),
        ("[flux-schnell.fields]\ngeneration_ratio = { enum = [] }\n", "`enum` lists at least one text"),
        ("[flux-schnell.fields]\ngeneration_seed = { min = 2, max = 1 }\n", "`min` 2 is above `max` 1"),
        ('[flux-schnell.fields]\ngeneration_seed = { default = "x" }\n', "'x' is no default"),
        ("[flux-schnell.fields]\ngeneration_duration = { enum = [5] }\n", "belongs to video models"),
        ("[flux-schnell.fields]\ngeneration_raw = { min = 1 }\n", "type boolean takes no `min`"),
        ('[flux-schnell.providers.acme]\nmodel = "x"\n', "providers.acme: is not in providers.toml"),
        ("[flux-schnell.providers.fal]\nusd = -0.1\n", "providers.fal: usd is an amount of at least 0"),
        ("[flux-schnell.providers.fal]\nmodel = 1\n", "providers.fal.model: Expected `str`, got `int`"),
        ("[flux-schnell.providers.fal]\npartial = false\n", "limits.generation_output_format is narrower"),
        ("[flux-schnell]\npricing_tiers = { 9K = 1.0 }\n", "names neither a quality nor a resolution"),
        ("[nano-banana-2]\npricing_tiers = { 1K = 1.0 }\n", "has no price for generation_resolution '2K'"),
        ('[flux-schnell]\npricing_unit = "second"\n', "an image is not priced by the second"),
        ("[veo-3]\npricing = { 720p = 0.2 }\n", "pricing: has no price for 1080p_audio"),
        ("[veo-3]\npricing = { 720p = 0.2, 1080p = 0.2, 4k = 1.0 }\n", "'4k' is never used"),
        ("[veo-3]\nmax_seconds = 10\n", "max_seconds: belongs to models priced by the second"),
        ("[veo-3]\nexcludes = [{ generation_duration = 5 }]\n", "names 5, which is not a value"),
        ("[veo-3]\nexcludes = [{ generation_mask = true }]\n", "which the model does not have"),
        ('[veo-3]\nignored = ["generation_prompt"]\n', "is one of the model's fields"),
        ('[veo-3.fields]\ngeneration_resolution = { default = "1080p" }\n', "the first of its list"),
        ("[veo-3.fields]\ngeneration_duration = { enum = [0] }\n", "lists whole seconds"),
        ("[gen-4-aleph]\nmax_seconds = 0\n", "max_seconds: is needed"),
    ],
)
def test_fault_in_a_model_is_told_with_file_and_field(overrides: Overrides, text: str, fault: str) -> None:
    file = {"[veo": "google", "[nan": "google", "[gen": "runway"}.get(text[:4], "bfl")
    directory = overrides({f"models/{file}.toml": text})
    told = faults_of(directory)
    start = f"{directory}/models/{file}.toml: {file}/"
    assert any(line.startswith(start) and fault in line for line in told), told


def test_fault_of_shape_names_the_model(overrides: Overrides) -> None:
    told = one_fault(overrides({"models/bfl.toml": '[flux-schnell.providers.fal]\nusd = "much"\n'}))
    assert told.startswith("models/bfl.toml: bfl/flux-schnell: providers.fal.usd: ")


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"models/bfl.toml": "[flux"}, "models/bfl.toml: cannot be read: "),
        ({"models/bfl.toml": "flux = 1\n"}, "models/bfl.toml: flux: is not a table"),
        ({"models.toml": ""}, "models.toml: is not read; models belong in models/<prefix>.toml"),
        ({"providers.toml": "[fal]\nwebsite = 1\n"}, "providers.toml: fal: website: "),
        ({"fields.toml": '[generation_seed]\ntype = "int"\n'}, "fields.toml: generation_seed: type: "),
        ({"models/acme.toml": "[one]\n"}, "a file of models starts with `lab`"),
    ],
)
def test_fault_in_a_file_is_told(overrides: Overrides, files: dict[str, str], fault: str) -> None:
    directory = overrides(files)
    told = [line.removeprefix(f"{directory}/") for line in faults_of(directory)]
    assert any(fault in line for line in told), told


def test_all_faults_are_told_at_once(overrides: Overrides) -> None:
    directory = overrides(
        {
            "models/bfl.toml": "[flux-schnell]\npricing = -1\n[flux-dev]\nmedia = 1\n",
            "models/google.toml": "[veo-3]\nmax_seconds = 3\n",
            "providers.toml": "[fal]\nname = 1\n",
        }
    )
    assert len(faults_of(directory)) == 4


def test_missing_directory_is_told(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path / "absent")
    assert fault.endswith("absent: is not a directory")


def test_markup_multiplies_and_the_models_own_wins() -> None:
    markup = Markup(
        default=Decimal("1.1"),
        providers={"fal": Decimal("1.5"), "cloudflare": Decimal("0.5")},
        models={"google/veo-3": Decimal(2)},
    )
    catalog = load_catalog(markup=markup)
    assert catalog.model("bfl/flux-schnell").pricing == Decimal("0.0075")  # replicate 1.1, fal 1.5
    assert catalog.model("prunaai/p-image").pricing == Decimal("0.0055")  # replicate only: the default
    veo = catalog.model("google/veo-3").pricing
    assert isinstance(veo, dict)
    assert veo["720p_audio"] == Decimal("0.8")
    assert catalog.model("gpt/image-2").pricing_tiers["high"] == Decimal("0.3165")


@pytest.mark.parametrize(
    ("markup", "fault"),
    [
        (Markup(default=Decimal(0)), "markup: default: is a factor above 0"),
        (Markup(providers={"acme": Decimal(1)}), "markup: providers.acme: is not in the catalog"),
        (Markup(models={"bfl/flux-schnell": Decimal("nan")}), "markup: models.bfl/flux-schnell: is a factor"),
    ],
)
def test_wrong_markup_is_told(markup: Markup, fault: str) -> None:
    assert any(line.startswith(fault) for line in faults_of(None, markup))
