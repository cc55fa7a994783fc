"""encoded examples -> a LoRA adapter on a processor: exact, in float32, for llama-like decoders.

    shape.py      config.json -> what the decoder is, or why it is not one of ours
    lora.py       the adapter: one flat vector of weights; PEFT's folder
    linear.py     y = x (W + s B A)^T and its backward
    attention.py  causal attention of one row, rotary positions
    decoder.py    tokens -> loss and the adapter's gradients
    trainer.py    the loop: steps, dev loss, checkpoints, resuming

Why not autograd: the frozen weights need no gradient, so a layer's backward is five matrix products that are
written down here; nothing but what they need is kept, rows are packed without padding, and logits exist only
where an answer is predicted. The gradients are held against peft's in the tests.
"""
