# The targets are in ./do, which also works where there is no make.
# Arguments: make test ARGS="tests/unit -k tree"
TARGETS = setup demo test test-matrix check lint format bench fuzz endure bpf wheel clean help

help:

$(TARGETS):
	@./do $@ $(ARGS)

.PHONY: $(TARGETS)
