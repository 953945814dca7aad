// The line above the cards that tells what is wrong with the exchange key.

// health: the payload of account_health, or null when nothing is known.
export function showHealth(line, health) {
  const problems = health && health.state !== "ok" ? health.problems : [];
  line.hidden = problems.length === 0;
  line.dataset.state = health?.state ?? "ok";
  line.textContent = problems.map((problem) => problem.message).join(" ");
}
