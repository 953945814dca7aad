// A short tint on what just changed; the style sheet decides how it looks, and drops it where motion is unwanted.

const MARKS = ["flash-up", "flash-down", "flash-flat"];

// `way` is up, down or flat.
export function flash(element, way) {
  element.classList.remove(...MARKS);
  void element.offsetWidth; // forces a layout, so that the same animation starts anew
  element.classList.add(`flash-${way}`);
}
