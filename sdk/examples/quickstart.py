"""From nothing to a saved picture."""

from babysea import BabySea

with BabySea() as client:
    generation = client.generate_and_wait("bfl/flux-schnell", "a red fox in fresh snow")
    print(client.download(generation)[0])
