"""The main job: one request in, a settled generation out."""

from tests.support import Customer

from babysea_server.kit.money import micros


async def test_an_image_is_accepted_made_stored_settled_and_served(customer: Customer) -> None:
    generation = await customer.made("bfl/flux-schnell", generation_output_number=2)
    assert generation["generation_status"] == "succeeded"
    assert generation["generation_provider_used"] in generation["generation_provider_order"]
    assert len(generation["generation_output_file"]) == 2
    for url in generation["generation_output_file"]:
        file = await customer.deployment.client.get(url)
        assert file.status_code == 200
        assert file.headers["content-type"] == "image/jpeg"
        assert file.content.startswith(b"\xff\xd8\xff")
    assert await customer.balance() == micros("99.99")
    assert await customer.deployment.differences() == []


async def test_a_failed_generation_is_refunded_whole_and_says_so(customer: Customer) -> None:
    generation = await customer.made(generation_prompt="[sandbox:fail]")
    assert generation["generation_status"] == "failed"
    assert generation["generation_error_code"] == "BSE4001"
    assert "not charged" in generation["generation_error"]
    assert await customer.balance() == micros("100")
    assert await customer.deployment.differences() == []
