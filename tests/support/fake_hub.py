"""A fake Hugging Face Hub on loopback: the endpoints that `huggingface_hub` calls to create a repository, upload,
commit and download. `HF_ENDPOINT` points to it."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_fake"
USER = "endoscopist"
OTHER_REPO_TYPES = ("datasets", "spaces")  # prefixes of the names of these repositories; models have none
LFS_SUFFIXES = (".safetensors", ".png", ".parquet")


class FakeHub:
    """State of the Hub. `repos` maps each repository to its commits (dictionaries of file contents), the newest
    last."""

    def __init__(self):
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.created: list[dict] = []
        self.uploads = 0
        self.break_after_uploads: int | None = None
        self.has_write_access = True

    def files(self, repo: str) -> dict[str, bytes]:
        return self.repos[repo][-1] if self.repos[repo] else {}


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args):
        pass

    def respond(self, status: int, body=b"", content_type: str = "application/json", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def respond_error(self, status: int, error: str, **headers):
        self.respond(status, {"error": error}, X_Error_Message=error, **headers)

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    @property
    def is_authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def handle_any(self):
        hub, path = self.hub, self.path.split("?")[0]
        hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if self.command == "PUT" and parts[0] == "lfs-upload":
            content = self.read_body()
            hub.uploads += 1
            if hub.break_after_uploads is not None and hub.uploads > hub.break_after_uploads:
                self.close_connection = True
                self.connection.close()
                return None
            assert hashlib.sha256(content).hexdigest() == parts[1]
            hub.lfs[parts[1]] = content
            return self.respond(200, b"")
        if path == "/api/whoami-v2":
            if not self.is_authorized:
                return self.respond_error(401, "Invalid credentials in Authorization header")
            return self.respond(200, {"type": "user", "name": USER, "orgs": []})
        if path == "/api/validate-yaml":
            self.read_body()
            return self.respond(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            request = json.loads(self.read_body())
            if not self.is_authorized or not hub.has_write_access:
                return self.respond_error(
                    403 if self.is_authorized else 401, "You don't have the rights to create a model"
                )
            repo_type = request.get("type") or "model"
            prefix = "" if repo_type == "model" else f"{repo_type}s/"
            name = f"{prefix}{request.get('organization') or USER}/{request['name']}"
            hub.created.append(request)
            if name in hub.repos:
                return self.respond_error(409, "You already created this model repo")
            hub.repos[name] = []
            if request.get("visibility") == "private" or request.get("private"):
                hub.private.add(name)
            return self.respond(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": "1"})
        if parts[:2] == ["api", "models"]:
            return self.repository("/".join(parts[2:4]), parts[4:])
        if parts[0] == "api" and parts[1] in OTHER_REPO_TYPES:
            return self.repository("/".join(parts[1:4]), parts[4:])
        if any(part.endswith(".git") for part in parts[1:3]):  # LFS batch
            objects = []
            for item in json.loads(self.read_body())["objects"]:
                actions = {} if item["oid"] in hub.lfs else {"upload": {"href": self.url(f"lfs-upload/{item['oid']}")}}
                objects.append(item | ({"actions": actions} if actions else {}))
            return self.respond(
                200, {"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json"
            )
        if len(parts) >= 5 and parts[2] == "resolve":
            return self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self.respond_error(404, "Not found")

    def url(self, path: str) -> str:
        return f"http://{self.headers['Host']}/{path}"

    def sha(self, repo: str) -> str:
        return hashlib.sha1(f"{repo} {len(self.hub.repos[repo])}".encode()).hexdigest()

    def is_visible(self, repo: str) -> bool:
        return repo in self.hub.repos and (repo not in self.hub.private or self.is_authorized)

    def repository(self, repo: str, rest: list[str]):
        hub = self.hub
        if not self.is_visible(repo):
            self.read_body()
            return self.respond_error(
                404 if self.is_authorized else 401, "Repository not found", X_Error_Code="RepoNotFound"
            )
        if rest[:1] == ["preupload"]:
            files = json.loads(self.read_body())["files"]
            modes = ("lfs" if item["path"].endswith(LFS_SUFFIXES) else "regular" for item in files)
            entries = [{"path": f["path"], "uploadMode": mode, "shouldIgnore": False} for f, mode in zip(files, modes)]
            return self.respond(200, {"files": entries})
        if rest[:1] == ["commit"]:
            contents = dict(hub.files(repo))
            for line in self.read_body().splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    contents[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                elif row["key"] == "lfsFile":
                    contents[row["value"]["path"]] = hub.lfs[row["value"]["oid"]]
            hub.repos[repo].append(contents)
            sha = self.sha(repo)
            return self.respond(200, {"success": True, "commitOid": sha, "commitUrl": self.url(f"{repo}/commit/{sha}")})
        if rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": n, "size": len(c), "oid": self.oid(c)} for n, c in hub.files(repo).items()]
            return self.respond(200, tree)
        names = [{"rfilename": name} for name in hub.files(repo)]
        return self.respond(
            200, {"id": repo, "modelId": repo, "sha": self.sha(repo), "siblings": names, "tags": [], "private": False}
        )

    @staticmethod
    def oid(content: bytes) -> str:
        return hashlib.sha1(content).hexdigest()

    def resolve(self, repo: str, revision: str, name: str):
        if not self.is_visible(repo):
            return self.respond_error(401, "Repository not found", X_Error_Code="RepoNotFound")
        content = self.hub.files(repo).get(name)
        if content is None:
            return self.respond_error(
                404, "Entry not found", X_Error_Code="EntryNotFound", X_Repo_Commit=self.sha(repo)
            )
        headers = {"ETag": f'"{self.oid(content)}"', "X_Repo_Commit": self.sha(repo), "Accept_Ranges": "bytes"}
        return self.respond(200, content, content_type="application/octet-stream", **headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any


@contextmanager
def run_fake_hub():
    """Runs a fake Hub; yields it and its URL."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (HubHandler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def hub_environment(url, folder, token=TOKEN):
    """Environment variables of a user who is logged in."""
    return {
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # the fake Hub implements Git LFS only
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
