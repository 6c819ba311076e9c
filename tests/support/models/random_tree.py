"""A token tree of random ids."""

import torch

from igpo.tree.segments import Segment


def random_tree(seed: int, prompt: int, trunks: list[int], branch: int) -> list[Segment]:
    """A prompt, trajectories of the given lengths, and branches after every ~third of each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(0, 320, (count,), generator=generator).tolist()

    root = Segment(draw(prompt), targets=range(1, prompt))
    segments = [root]
    for length in trunks:
        trunk = Segment(draw(length), root, prompt, range(length))
        ends = sorted({0, length // 3, 2 * length // 3, length})
        answer = draw(branch)
        segments += [trunk, *(Segment(answer, trunk, end, [branch - 2, branch - 1]) for end in ends)]
    return segments
