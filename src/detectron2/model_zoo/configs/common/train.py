# What a training program reads beside the model, the data and the optimizer.
train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter=90000,
    device="cuda",
    amp=dict(enabled=False),
    ddp=dict(fp16_compression=False, find_unused_parameters=False, broadcast_buffers=False),
    # In iterations.
    log_period=20,
    eval_period=5000,
    checkpointer=dict(max_to_keep=100, period=5000),
)
