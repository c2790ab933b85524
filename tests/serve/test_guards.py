"""Pages of other sites cannot use a browser to ask the server, and answers tell browsers to load nothing else."""

import pytest

from medmtl.serve.guards import is_local


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "192.168.1.7", "0.0.0.0:8000", "scanner"]
)
def test_addresses_and_names_that_were_allowed_are_answered(serve, model, host):
    assert serve(model, allow_host=["Scanner"]).get("/info/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil", "", "[", "a:b:c"])
def test_a_name_that_leads_here_from_elsewhere_is_refused(client, host):
    answer = client.get("/info/", headers={"host": host})
    assert answer.status_code == 403
    assert "is not reached by the name" in answer.json()["error"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "file://", "http://[", ""])
def test_a_page_of_another_site_is_refused(client, scan, origin):
    headers = {"origin": origin, "host": "127.0.0.1:8000"}
    answer = client.post("/predict", files={"file": ("a.nii.gz", scan)}, headers=headers)
    assert answer.status_code == 403
    assert answer.json() == {"error": "a page of another site may not ask this server: open its own page"}
    preflight = client.options("/predict", headers={**headers, "access-control-request-method": "POST"})
    assert preflight.status_code == 403
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_its_own_page_is_answered(client, scan):
    headers = {"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"}
    assert client.post("/predict", files={"file": ("a.nii.gz", scan)}, headers=headers).status_code == 200


def test_answers_are_kept_by_nobody_and_shown_within_no_other_page(client):
    headers = client.get("/").headers
    policy = headers["content-security-policy"]
    assert (headers["cache-control"], headers["x-frame-options"]) == ("no-store", "DENY")
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy.partition("style-src")[0]


def test_local_addresses():
    assert is_local("127.0.0.1")
    assert is_local("::1")
    assert is_local("localhost")
    assert not is_local("0.0.0.0")
    assert not is_local("192.168.1.7")
    assert not is_local("scanner")
