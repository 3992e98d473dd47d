/* Dead letters of the dashboard: their tables, and the two actions. */
"use strict";

(() => {
  const { make } = channelsqDashboard;
  const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  /** The list of dead letters. `send` sends a frame of an action. */
  class Letters {
    constructor(send) {
      this.send = send;
      this.card = document.getElementById("letters-card");
      this.list = document.getElementById("letters");
      this.result = document.getElementById("letters-result");
      this.dialog = document.getElementById("sure");
      this.shown = "";
    }

    /** Shows the letters of all layers; the list is left alone if it is the same. */
    show({ layers, may_act: mayAct }) {
      const several = layers.length > 1;
      const told = JSON.stringify([layers, mayAct]);
      if (told === this.shown) return;
      this.shown = told;
      const hadFocus = this.list.contains(document.activeElement);
      this.list.replaceChildren();
      for (const layer of layers) {
        if (several) this.list.append(make("h3", { text: `Layer ${layer.layer}` }));
        if (layer.problem) this.list.append(make("p", { className: "note bad", text: layer.problem }));
        else if (!layer.letters.length) this.list.append(make("p", { className: "about", text: "None." }));
        const items = make("ul", { className: "letters" });
        for (const letter of layer.letters) items.append(this.item(layer.layer, letter, mayAct));
        if (layer.letters.length) this.list.append(items);
        if (layer.more) {
          this.list.append(make("p", { className: "about", text: "There are more: see manage.py deadletters." }));
        }
      }
      this.card.hidden = !layers.length;
      if (hadFocus) (this.list.querySelector("button") ?? document.getElementById("main")).focus();
    }

    item(layer, letter, mayAct) {
      const item = make("li");
      const text = make("div");
      const name = make("p", { className: "name" });
      name.append(make("b", { text: letter.queue }), make("code", { text: letter.id }));
      const about = `${moment.format(new Date(letter.died * 1000))} · ${letter.deaths} deaths · ${letter.reason || "no reason known"}`;
      text.append(name, make("p", { className: "about", text: about }));
      item.append(text);
      if (mayAct) {
        const buttons = make("div", { className: "buttons" });
        for (const [action, label] of [["replay", "Replay"], ["delete", "Delete"]]) {
          const button = make("button", {
            type: "button",
            text: label,
            className: action === "delete" ? "danger" : "",
            "aria-label": `${label} the dead letter ${letter.id} of ${letter.queue}`,
          });
          button.addEventListener("click", () => this.ask(action, label, layer, letter));
          buttons.append(button);
        }
        item.append(buttons);
      }
      return item;
    }

    /** Asks the user, and sends the action after a yes. */
    ask(action, label, layer, letter) {
      document.getElementById("sure-title").textContent = `${label} this dead letter?`;
      document.getElementById("sure-text").textContent =
        action === "delete"
          ? `The message ${letter.id} of ${letter.queue} is deleted for good.`
          : `A worker handles ${letter.id} of ${letter.queue} once more. Workers died with it.`;
      const yes = document.getElementById("sure-yes");
      yes.textContent = label;
      yes.classList.toggle("danger", action === "delete");
      this.dialog.returnValue = "no";
      this.dialog.addEventListener(
        "close",
        () => {
          if (this.dialog.returnValue !== "yes") return;
          this.result.textContent = "";
          this.send({ type: action, layer, queue: letter.queue, id: letter.id });
        },
        { once: true },
      );
      this.dialog.showModal();
    }

    /** Shows the result of an action. */
    done({ ok, text }) {
      this.result.className = `note ${ok ? "good" : "bad"}`;
      this.result.textContent = text;
    }
  }

  channelsqDashboard.Letters = Letters;
})();
