"""An outbox that is full lets out what is in it, whatever filled it."""
