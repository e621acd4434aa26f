"""The integer arithmetic: one definition that training, the compiler and the tests share."""
