"""Reading nightkeep.toml: the contract's names, all mistakes at once with their lines, and never a traceback."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.config import InvalidConfigError, Loaded, data_dir, find_config, load, parse, prepare_data_dir

FILE = Path("nightkeep.toml")
CONTRACT = """
[providers.lab]
wire = "openai_chat"
base_url = "http://127.0.0.1:9001/v1"

[accounts.lab-1]
provider = "lab"
key = "env:LAB_KEY"
pool = "production"
limits = { requests_per_minute = 60, tokens_per_minute = 100_000, concurrent = 8 }
quota = { tokens = 5_000_000, per = "day", resets_at = "00:00 America/Los_Angeles" }

[accounts.lab-2]
provider = "lab"
key = "file:lab-2.key"
pool = "production"

[pools.production]
strategy = "round_robin"
reserve = { monitoring = 1 }

[models.smart]
targets = ["anthropic/claude-opus-4-6", "lab/big-model"]
failover = "ordered"

[prices."lab/big-model"]
input = 5.00
output = 25.00

[[routes]]
match = { tags = ["batch", "content"] }
limits = { requests_per_minute = 20, concurrent = 3 }

[keys.team-a]
scope = "acme"
hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
"""


def read(text: str, environ: dict[str, str] | None = None) -> Loaded:
    return parse(text.encode(), FILE, environ or {})


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        read(text)
    return [f"{each.line}: {each.setting}: {each.what} | {each.fix}" for each in caught.value.problems]


def test_the_names_of_the_design_are_the_contract() -> None:
    settings = read(CONTRACT).settings
    account = settings.accounts["lab-1"]
    assert account.limits.tokens_per_minute == 100_000
    assert account.quota[0].resets_at == "00:00 America/Los_Angeles"
    assert settings.pools["production"].reserve == {"monitoring": 1}
    assert settings.prices["lab/big-model"][0].output == Decimal("25.0")
    assert settings.routes[0].limits.concurrent == 3
    assert not settings.is_simulated
    assert read(CONTRACT).warnings == ()


def test_every_mistake_is_told_at_once_with_its_line_and_the_fix() -> None:
    assert problems(
        """
[gateway]
prot = 7778
port = 99999

[accounts.a]
provider = "opnai"
key = "env:A"

[models.x]
targets = ["y"]
tagets = []

[[routes]]
match = { tag = ["batch"] }

[[routes]]
match = { tags = ["batch"] }
pool = "defualt"
"""
    ) == [
        "3: gateway.prot: there is no such setting | did you mean port?",
        "4: gateway.port: 99999 is out of range | it must be at most 65,535",
        "7: accounts.a.provider: there is no provider 'opnai' | did you mean openai?",
        "12: models.x.tagets: there is no such setting | did you mean targets?",
        "15: routes[1].match.tag: there is no such setting | did you mean tags?",
        "19: routes[2].pool: there is no pool 'defualt' | did you mean default?",
    ]


def test_a_key_in_the_file_is_refused_and_not_repeated() -> None:
    text = '[accounts.a]\nprovider = "openai"\nkey = "sk-proj-secretsecretsecret"\n'
    with pytest.raises(InvalidConfigError) as caught:
        read(text)
    assert "a key may not stand in the file itself" in str(caught.value)
    assert "env:NAME" in str(caught.value)
    assert "secretsecret" not in str(caught.value) + repr(caught.value) + repr(caught.value.data)


@pytest.mark.parametrize(
    "text",
    [
        '[accounts.a]\nprovider = "openai"\napi_key = "SECRETSECRET"',
        '[keys.a]\nscope = "acme"\nhash = "nk-SECRETSECRET"',
        '[providers.a]\nwire = "gemini"\nbase_url = "https://user:SECRETSECRET@h/v1"',
        '[providers.a]\nwire = "gemini"\nbase_url = "https://h/v1"\nheaders = { authorization = "SECRETSECRET" }',
        '[accounts.a]\nprovider = "openai"\nkey = "cmd:"\nregion = "SECRET SECRET sk-SECRETSECRETSECRETSECRET"',
    ],
)
def test_no_message_repeats_what_may_be_a_secret(text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        read(text)
    assert "SECRETSECRET" not in str(caught.value)


BUDGET = '[[budgets]]\nscope = "acme/triage"\nper = "day"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BUDGET, "it limits nothing"),
        (f"{BUDGET}usd = 1\n{BUDGET}usd = 2", "budget 1 limits usd of the same scope and window"),
        (f"{BUDGET}usd = 1\nreserve = {{ escalation = 2 }}", "more is reserved than there is"),
        (f'{BUDGET}usd = 1\nresets_on = "friday"', "only a week begins on a weekday"),
        (f'{BUDGET}usd = 1\nthresholds = [{{ at = 0.5, do = "degrade" }}]', "it does not say to which model"),
        (f"{BUDGET}usd = 1\nthresholds = [{{ at = 1.5 }}]", "thresholds"),
        (f"{BUDGET}usd = -1", "usd"),
        ('[[budgets]]\nscope = "acme/../beta"\nusd = 1\nper = "day"', "scope"),
        ('[[budgets]]\nscope = "*/triage"\nusd = 1\nper = "day"', "scope"),
    ],
)
def test_a_budget_that_cannot_hold_is_refused_with_its_line(text: str, expected: str) -> None:
    assert expected in problems(text)[0]


LIMIT = '[[limits]]\nscope = "acme/*"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LIMIT, "it limits nothing"),
        (f"{LIMIT}concurrent = 1\n{LIMIT}requests_per_minute = 5", "limit 1 is for the same scope and tags"),
        (f"{LIMIT}concurrent = 0", "concurrent"),
        (f"{LIMIT}concurrent = true", "concurrent"),
        (f'{LIMIT}concurrent = 1\nname = "bad name"', "is no allowed name"),
        ('[[limits]]\nscope = "acme/../beta"\nconcurrent = 1', "scope"),
        ('[[limits]]\nscope = "*/triage"\nconcurrent = 1', "scope"),
        (f"{LIMIT}rpm = 5", "did you mean requests_per_minute?"),
    ],
)
def test_a_limit_that_cannot_hold_is_refused_with_its_line(text: str, expected: str) -> None:
    assert expected in problems(text)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[models.a]\ntargets=["b"]\n[models.b]\ntargets=["c"]\n[models.c]\ntargets=["a"]',
            "goes round in a circle: a -> b -> c -> a",
        ),
        ('[models.a]\ntargets=["a"]', "goes round in a circle: a -> a"),
        ('[models.a]\ntargets=["nobody/x"]', "there is no provider 'nobody'"),
        ("[models.a]\ntargets=[]", "is empty"),
        ('[accounts.a]\nprovider="openai"', "key is missing"),
        ('[accounts.a]\nprovider="azure"\nkey="env:A"', "base_url is missing"),
        ('[accounts.a]\nprovider="ollama"\n[pools.default]\nreserve={x=2}', "reserves 2 accounts of a pool of 1"),
        ('[providers.lab]\nbase_url="http://h/v1"', "wire is missing"),
        ('[providers.lab]\nwire="openai"\nbase_url="http://h/v1"', "is not one of openai_chat"),
        ('[accounts.a]\nprovider="ollama"\nenabled="yes"', "is a text | it must be true or false"),
        ('[accounts.a]\nprovider="ollama"\nquota={per="day"}', "limits nothing"),
        ('[accounts.a]\nprovider="ollama"\nquota={tokens=5, per="day", resets_at="25:00"}', "is no time of day"),
        ('[accounts.a]\nprovider="ollama"\nlimits={rpm=5}', "did you mean requests_per_minute?"),
        ('[accounts.a]\nprovider="bedrock"\nkey="vault:"\nregion="r"', "names nothing"),
        ('[keys.a]\nscope="../x"\nhash="x"', "is not allowed"),
        ("[gateway]\ndeadlines={idle_s=1e9}", "out of range"),
        ("[gateway]\ndeadlines={idle_s=100, total_s=50}", "is over total_s"),
        ('[prices."nobody/x"]\ninput=1', "there is no provider 'nobody'"),
        ('[prices."openai/x"]\ninput=-1', "out of range"),
        ('[prices."openai/x"]\ninput=nan', "number"),
        ('[tasks.code_generaton]\nprimary="gpt-4.1"', "did you mean code_generation?"),
        ('[tasks.code_generation]\nprimary="nonsense"', "no known model"),
        ("gateway = 3", "it must be a table"),
        ("[gatway]\nport=1", "did you mean gateway?"),
        ("[gateway]\nport = 7777\nport = 7778", "is not valid TOML"),
        ('[notify]\nwebhook="ftp://x"', "is no http or https address"),
    ],
)
def test_what_cannot_work_is_an_error(text: str, expected: str) -> None:
    assert expected in "\n".join(problems(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[accounts.a]\nprovider="ollama"\n[pools.default]\nreserve={x=1}', "reserves all 1 accounts"),
        ('[pools.empty]\nstrategy="fill_first"', "has no accounts"),
        (
            '[accounts.a]\nprovider="openai"\nkey="env:A"\n[accounts.b]\nprovider="openai"\nkey="env:A"',
            "is the key of a too",
        ),
        ('[providers.lab]\nwire="openai_chat"\nbase_url="http://h:1"\nfree=true', 'did you mean "http://h:1/v1"?'),
        (
            '[providers.lab]\nwire="openai_chat"\nbase_url="http://h/v1"\n[models.m]\ntargets=["lab/x"]',
            "lab/x has no price",
        ),
        ('[models.m]\ntargets=["openrouter/nobody/knows"]', "openrouter/nobody/knows has no price"),
        ('[[routes]]\nmatch={}\npool="default"\n[[routes]]\nmatch={tags=["a"]}\nfailover="none"', "is never reached"),
        ('[gateway]\nrequire_key="never"\nhost="0.0.0.0"', "lets everybody who reaches 0.0.0.0"),
    ],
)
def test_what_is_doubtful_is_a_warning(text: str, expected: str) -> None:
    assert expected in "\n".join(str(each) for each in read(text).warnings)


def test_a_long_chain_of_aliases_is_no_trouble() -> None:
    chain = "".join(f'[models.m{n}]\ntargets=["m{n + 1}"]\n' for n in range(3_000))
    assert read(chain + '[models.m3000]\ntargets=["openai/x"]').settings.models["m0"].targets == ("m1",)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_give_settings_or_problems(data: bytes) -> None:
    try:
        parse(data, FILE, {})
    except InvalidConfigError as error:
        assert error.problems


WORDS = st.sampled_from(
    [
        "gateway",
        "accounts",
        "models",
        "keys",
        "routes",
        "match",
        "tags",
        "quota",
        "limits",
        "a",
        "key",
        "provider",
        "per",
    ]
)
VALUES = st.recursive(
    st.sampled_from(
        ["1", "-1", "1.5", "nan", "true", '"x"', '"openai"', "2020-01-01", "[]", "{}", '"env:X"', "9" * 40]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]")
        | st.dictionaries(WORDS, inner, max_size=3).map(
            lambda each: "{" + ", ".join(f"{key} = {value}" for key, value in each.items()) + "}"
        )
    ),
    max_leaves=6,
)
LINES = st.one_of(
    st.lists(WORDS, min_size=1, max_size=3).map(lambda path: f"[{'.'.join(path)}]"),
    st.lists(WORDS, min_size=1, max_size=2).map(lambda path: f"[[{'.'.join(path)}]]"),
    st.tuples(st.lists(WORDS, min_size=1, max_size=3), VALUES).map(lambda pair: f"{'.'.join(pair[0])} = {pair[1]}"),
)


@given(st.lists(LINES, max_size=8).map("\n".join))
def test_nearly_right_files_give_settings_or_problems_with_lines(text: str) -> None:
    try:
        parse(text.encode(), FILE, {})
    except InvalidConfigError as error:
        assert error.problems
        try:
            tomllib.loads(text)
        except ValueError:
            return
        assert all(each.line is not None for each in error.problems), str(error)


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"a = " + b"[" * 100_000, b"a = " + b"9" * 10_000, b"\x00", b"a" * (5 << 20)]
)
def test_hostile_files_are_problems(data: bytes) -> None:
    with pytest.raises(InvalidConfigError):
        parse(data, FILE, {})


def test_without_a_file_the_keys_of_the_environment_become_accounts() -> None:
    loaded = load(None, {"OPENAI_API_KEY": "sk-x", "GOOGLE_API_KEY": "AIza", "AZURE_OPENAI_API_KEY": "no endpoint"})
    assert {name: account.key for name, account in loaded.settings.accounts.items()} == {
        "openai": "env:OPENAI_API_KEY",
        "gemini": "env:GOOGLE_API_KEY",
    }
    assert loaded.from_environment == {"openai", "gemini"}


def test_without_a_file_and_keys_it_is_simulated() -> None:
    assert load(None, {}).settings.is_simulated
    assert load(None, {"OPENAI_API_KEY": "  "}).settings.is_simulated


def test_the_accounts_of_a_file_are_all_there_are() -> None:
    loaded = read('[accounts.a]\nprovider="ollama"', {"OPENAI_API_KEY": "sk-x"})
    assert list(loaded.settings.accounts) == ["a"]


def test_a_cloud_account_is_found_with_all_that_it_needs() -> None:
    aws = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-west-1"}
    assert load(None, aws).settings.accounts["bedrock"].region == "eu-west-1"
    assert load(None, {**aws, "AWS_SECRET_ACCESS_KEY": ""}).settings.is_simulated
    google = {
        "GOOGLE_APPLICATION_CREDENTIALS": "/k.json",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_CLOUD_LOCATION": "global",
    }
    assert load(None, google).settings.accounts["vertex"].key == "file:/k.json"


def test_the_file_is_looked_for_in_order(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "HOME": str(tmp_path)}
    assert find_config(environ, cwd=tmp_path) is None
    own = tmp_path / "xdg" / "nightkeep" / "nightkeep.toml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_config(environ, cwd=tmp_path) == own
    here = tmp_path / "nightkeep.toml"
    here.touch()
    assert find_config(environ, cwd=tmp_path) == here
    assert find_config(environ, "/elsewhere.toml", cwd=tmp_path) == Path("/elsewhere.toml")


def test_a_file_that_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be read"):
        load(tmp_path / "none.toml", {})


def test_the_data_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    assert data_dir({"HOME": "/h"}) == Path("/h/.local/share/nightkeep")
    assert data_dir({"HOME": "/h", "XDG_DATA_HOME": "/d"}) == Path("/d/nightkeep")
    assert data_dir({"HOME": "/h", "NIGHTKEEP_DATA": "/n"}) == Path("/n")
    assert data_dir({"NIGHTKEEP_DATA": "/n"}, "/o") == Path("/o")
    made = prepare_data_dir(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfigError, match="cannot be made"):
        prepare_data_dir(tmp_path / "file" / "x")


def test_the_starter_file_is_valid_commented_or_not() -> None:
    starter = Path(__file__).parents[3] / "src" / "nightkeep" / "config_starter.toml"
    text = starter.read_text()
    assert read(text).warnings == ()
    lines = text.splitlines()
    is_setting = [
        line.startswith("# ") and (line[2:3] == "[" or " = " in line.partition("#")[2].partition("#")[0])
        for line in lines
    ]
    filled = "\n".join(line[2:] if yes else line for line, yes in zip(lines, is_setting, strict=True))
    assert set(read(filled).settings.model_fields_set) >= {
        "accounts",
        "pools",
        "providers",
        "models",
        "routes",
        "prices",
    }
