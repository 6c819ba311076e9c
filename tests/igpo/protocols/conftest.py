"""Tokenizers of two families, each with its chat template."""

import pytest
import small_llama
import small_qwen


@pytest.fixture(scope="module")
def qwen():
    return small_qwen.tokenizer()


@pytest.fixture(scope="module", params=[small_qwen, small_llama], ids=["qwen", "llama"])
def words(request):
    return request.param.tokenizer()
