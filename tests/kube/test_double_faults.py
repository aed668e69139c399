"""What the double does on purpose to those who ask it."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from apidouble import ApiDouble

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


def configmap(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"k": "v"}}


def test_a_generated_name_that_is_taken_is_drawn_again(
    double: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = iter(["bbbbb", "bbbbb", "ccccc", *["bbbbb"] * 8])
    monkeypatch.setattr("double_objects.random.choices", lambda *_, **__: next(draws))
    answers = [double.request("POST", MAPS, {"metadata": {"generateName": "p-"}}) for _ in range(3)]
    names = [a["metadata"].get("name") for code, a in answers if code == 201]
    assert names == ["p-bbbbb", "p-ccccc"]
    code, refusal = answers[-1]  # eight draws, all taken
    assert (code, refusal["reason"]) == (409, "AlreadyExists")


def test_it_fails_as_often_as_planned(double: ApiDouble) -> None:
    double.fail("GET|PUT", "configmaps/a$", 429, times=2, headers={"Retry-After": "1"})
    assert double.request("POST", MAPS, configmap("a"))[0] == 201  # another method
    assert double.request("GET", f"{MAPS}/b")[0] == 404  # another path
    code, answer = double.request("GET", f"{MAPS}/a")
    assert (code, answer["reason"]) == (429, "TooManyRequests")
    assert double.request("PUT", f"{MAPS}/a", configmap("a"))[0] == 429
    assert double.request("GET", f"{MAPS}/a")[0] == 200


def test_heal_ends_every_plan(double: ApiDouble) -> None:
    double.fail("GET", "", 500, times=99)
    double.slow(30.0)
    double.heal()
    assert double.request("GET", MAPS)[0] == 200


def test_a_lost_answer_is_not_a_lost_write(double: ApiDouble) -> None:
    double.fail("POST", "configmaps$", 0)
    with pytest.raises(urllib3.exceptions.HTTPError):
        double.request("POST", MAPS, configmap("before"))
    double.fail("POST", "configmaps$", 504, after=True)
    assert double.request("POST", MAPS, configmap("after"))[0] == 504
    assert double.request("GET", f"{MAPS}/before")[0] == 404
    assert double.request("GET", f"{MAPS}/after")[0] == 200


def test_in_a_conflict_storm_the_version_is_always_old(double: ApiDouble) -> None:
    answer = double.request("POST", MAPS, configmap("a"))[1]
    double.conflict_storm("configmaps/a$", times=2)
    for _ in range(2):
        code, refusal = double.request("PUT", f"{MAPS}/a", answer)
        assert (code, refusal["reason"]) == (409, "Conflict")
        answer = double.request("GET", f"{MAPS}/a")[1]
    assert double.request("PUT", f"{MAPS}/a", answer)[0] == 200


def test_slow(double: ApiDouble) -> None:
    double.slow(0.3, "configmaps")
    started = time.monotonic()
    double.request("GET", "/version")
    assert time.monotonic() - started < 0.25
    double.request("GET", MAPS)
    assert time.monotonic() - started >= 0.3


def opened(double: ApiDouble) -> Iterator[dict[str, Any]]:
    """Return a watch that has shown the first object."""
    double.request("POST", MAPS, configmap("a"))
    events = double.watch(MAPS)
    assert next(events)["type"] == "ADDED"
    return events


def test_a_broken_watch_ends_without_a_word(double: ApiDouble) -> None:
    events = opened(double)
    double.break_watches()
    with pytest.raises(urllib3.exceptions.HTTPError):
        next(events)


def test_an_expired_watch_ends_with_410_and_so_do_old_versions_and_pages(double: ApiDouble) -> None:
    events = opened(double)
    double.request("POST", MAPS, configmap("b"))
    page = double.request("GET", MAPS, params={"limit": "1"})[1]["metadata"]
    double.expire_watches()
    kinds = [(event["type"], event["object"].get("code")) for event in events]
    assert kinds[-1] == ("ERROR", 410)
    again = double.watch(MAPS, {"resourceVersion": page["resourceVersion"]})
    assert [event["object"]["code"] for event in again] == [410]
    code, answer = double.request("GET", MAPS, params={"continue": page["continue"]})
    assert (code, answer["reason"]) == (410, "Expired")
    fresh = double.request("GET", MAPS)[1]["metadata"]["resourceVersion"]
    assert list(double.watch(MAPS, {"resourceVersion": fresh, "timeoutSeconds": "1"})) == []


def test_it_remembers_who_asked_for_what(double: ApiDouble) -> None:
    token = double.service_account_token("default", "someone")
    double.calls.clear()
    double.request("GET", MAPS, token=token, params={"limit": "5"})
    double.request("POST", MAPS, configmap("a"))
    first, second = double.calls
    assert (first.method, first.path, first.query) == ("GET", MAPS, {"limit": "5"})
    assert (first.user, first.status) == ("system:serviceaccount:default:someone", 403)
    assert (second.user, second.status, second.is_write) == ("admin", 201, True)


def test_a_token_dies_with_its_account(double: ApiDouble) -> None:
    token = double.service_account_token("default", "someone")
    assert double.request("GET", MAPS, token=token)[0] == 403
    double.request("DELETE", "/api/v1/namespaces/default/serviceaccounts/someone")
    assert double.request("GET", MAPS, token=token)[0] == 401


def test_it_refuses_what_it_cannot_do_as_the_real_one(double: ApiDouble) -> None:
    double.request("POST", MAPS, configmap("a"))
    patch = {"metadata": {"finalizers": ["a.io/b"]}}
    strategic = "application/strategic-merge-patch+json"
    code, answer = double.request("PATCH", f"{MAPS}/a", patch, content_type=strategic)
    assert code == 400
    assert "no strategic merge of lists" in answer["message"]
    apply = "application/apply-patch+yaml"
    assert double.request("PATCH", f"{MAPS}/a", configmap("a"), content_type=apply)[0] == 415


def test_it_starts_at_once() -> None:
    started = time.monotonic()
    double = ApiDouble()
    assert double.request("GET", "/readyz")[0] == 200
    assert time.monotonic() - started < 0.5
    double.close()
    double.close()  # twice is once
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", double.url)
