/* <channelsq-task ticket="…" path="…">: the bar of a live task, as {% task_progress %} writes it into a page.
 *
 * All bars of a page share one socket for each path.
 */
import { bridgeOf } from "./livesocket.js";

class TaskBar extends HTMLElement {
  #task = null;

  connectedCallback() {
    if (this.#task) return;
    this.#task = bridgeOf(this.getAttribute("path") ?? "/channelsq/live/").task(this.getAttribute("ticket"));
    this.#task.addEventListener("progress", () => this.#show());
    this.#task.addEventListener("state", () => this.#show());
    if (this.#task.state) this.#show();
  }

  /** The live task, see bridge.task(). */
  get task() {
    return this.#task;
  }

  #show() {
    const { state, done, total, text, error } = this.#task;
    const [bar, status] = [this.querySelector("progress"), this.querySelector("[role=status]")];
    const box = bar?.parentElement;
    if (box?.dataset.state !== undefined) box.dataset.state = state;
    if (bar) {
      if (state === "success") bar.value = bar.max = 1;
      else if (state === "started" && total) [bar.max, bar.value] = [total, Math.min(done, total)];
      else if (state === "started") bar.removeAttribute("value");
    }
    if (!status) return;
    const words = JSON.parse(this.getAttribute("words") ?? "{}");
    const counted = total ? `${done} / ${total} ${text ?? ""}`.trim() : text;
    const shown = state === "failure" ? error : state === "started" ? counted || words.started : words[state];
    // The bar tells a screen reader the numbers; only other changes are read out.
    status.setAttribute("aria-live", state === "started" ? "off" : "polite");
    status.textContent = shown ?? words[state] ?? state;
  }
}

customElements.get("channelsq-task") ?? customElements.define("channelsq-task", TaskBar);
