"""What a delivery leaves behind: nothing that only a collection of garbage would find."""

import pytest
from tests.uncollected import uncollected
from tests.webhooks.conftest import Post

from babysea_server.webhooks.types import DueDelivery, Sent


@pytest.mark.parametrize("status", [200, 500])
async def test_a_delivery_that_was_tried_leaves_no_garbage(post: Post, status: int) -> None:
    hook = await post.hook()
    post.receiver.path("/hook", statuses=[status])
    with uncollected(DueDelivery, Sent) as left_behind:
        post.deliverer()
        await post.happen(5)
        await post.settled(hook)
        assert left_behind() == {}


async def test_a_delivery_that_nobody_takes_leaves_no_garbage(post: Post) -> None:
    hook = await post.hook(url="http://127.0.0.1:9/hook")
    with uncollected(DueDelivery, Sent) as left_behind:
        post.deliverer()
        await post.happen(5)
        await post.settled(hook)
        assert left_behind() == {}
