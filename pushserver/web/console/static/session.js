// The login API. The token lives in this module's memory only: closing or reloading the page forgets it.

const REQUEST_TIMEOUT_MS = 10_000;

export class ApiError extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

async function post(path, { body, token } = {}) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(`api/auth/${path}`, {
      method: "POST",
      headers,
      body: body && JSON.stringify(body),
      credentials: "omit",
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  } catch {
    throw new ApiError("unreachable", "The server cannot be reached. Try again in a moment.", 0);
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  const error = answer?.error;
  throw new ApiError(
    error?.code ?? "unexpected_answer",
    withWait(error?.message ?? `The server answered ${response.status}.`, response.headers.get("Retry-After")),
    response.status,
  );
}

function withWait(message, seconds) {
  return seconds ? `${message} Try again in ${seconds} s.` : message;
}

export class Session {
  #token;

  constructor(username, answer) {
    this.username = username;
    this.userId = answer.user_id;
    this.#token = answer.token;
    this.expiresAt = Date.now() + answer.expires_in * 1000;
  }

  static async login(username, password) {
    return new Session(username, await post("login", { body: { username, password } }));
  }

  get token() {
    return this.#token;
  }

  async refresh() {
    const answer = await post("refresh", { token: this.#token });
    this.#token = answer.token;
    this.expiresAt = Date.now() + answer.expires_in * 1000;
  }

  async logout() {
    try {
      await post("logout", { token: this.#token });
    } finally {
      this.#token = null;
    }
  }
}
