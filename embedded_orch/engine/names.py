"""Names of runs that people can say: an adjective and an animal. Never a key."""

from __future__ import annotations

from functools import cache

_ADJECTIVES = (
    "able agile amber ample apt azure balmy bold brave breezy brisk calm candid cheery civil "
    "clear clever coral cosy crisp curious daring deft eager early earnest easy fair fancy "
    "fleet fond frank free fresh gentle giddy glad golden grand great green handy happy hardy "
    "hearty honest humble ivory jolly keen kind light lively loyal lucid lucky mellow merry "
    "mighty mild modest neat nimble noble olive open patient placid plucky polite proud quick "
    "quiet rapid ready robust rosy royal ruby rustic sage serene sharp shiny silent silver "
    "sleek smart snug solid spry stable steady still stout sunny swift tidy topaz true upbeat "
    "valid vivid warm wary wise witty young zesty"
)
_ANIMALS = (
    "alpaca ant ape badger bat bear beaver bee beetle bison boar bobcat buck bull camel "
    "caribou cat civet clam cobra cod coot coyote crab crane cricket crow curlew deer dingo "
    "dodo dog dove drake duck eagle eel egret eland elk emu falcon fawn ferret finch fox frog "
    "gannet gecko gibbon gnu goat goose grouse gull hare hawk hen heron hippo hornet horse "
    "hound husky hyena ibex ibis impala jackal jaguar jay kite kiwi koala koi krill lark "
    "lemur leopard lion lizard llama lobster loon lynx macaw magpie marmot marten mink mole "
    "moose moth mouse mule newt okapi orca oryx osprey otter owl ox oyster panda parrot "
    "pelican perch pigeon pika plover pony puffin puma quail rabbit raven ray robin rook "
    "salmon seal shark sheep shrew skink skua sloth snail snipe sparrow squid stag starling "
    "stoat stork swan swift tapir teal tern thrush tiger toad trout tuna turtle viper vole "
    "vulture walrus wasp weasel whale wolf wombat wren yak zebra"
)


def run_name(random_bytes: bytes) -> str:
    """A name from four random bytes."""
    adjectives, animals = _words()
    first = int.from_bytes(random_bytes[:2], "big") % len(adjectives)
    second = int.from_bytes(random_bytes[2:], "big") % len(animals)
    return f"{adjectives[first]}-{animals[second]}"


@cache
def _words() -> tuple[list[str], list[str]]:
    adjectives: list[str] = [*_ADJECTIVES.split()]
    animals: list[str] = [*_ANIMALS.split()]
    return adjectives, animals
