import signal

# A shell's background job ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config) -> int:
    """Two processes for the whole suite; named tests start sooner in this one, and those of SLURM or vLLM need it alone."""
    everything = config.args_source is config.ArgsSource.TESTPATHS and "not slurm" in config.option.markexpr
    return 2 if everything else 0
