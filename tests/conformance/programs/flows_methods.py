"""Flows and tasks may be methods, class methods and static methods."""

from embedded_orch import flow, task


class Loader:
    factor = 3

    @task
    def scaled(self, number):
        return number * self.factor

    @flow
    def load(self, number):
        return self.scaled(number)

    @classmethod
    @flow
    def of_class(cls):
        return cls.factor

    @staticmethod
    @flow
    def alone(number):
        return number


assert Loader().load(2) == 6
assert Loader.of_class() == 3
assert Loader.alone(5) == 5
