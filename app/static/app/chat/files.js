// Files: chosen, pasted or dropped, shown above the input, and sent by HTTP with progress.

import { newKey } from "./storage.js";

const chat = document.getElementById("chat");
const composer = document.getElementById("composer");
const field = document.getElementById("file");
const chosen = document.getElementById("chosen");
const preview = document.getElementById("preview");
const alt = document.getElementById("alt");
const bar = document.getElementById("upload");
const limit = Number(chat.dataset.sizeLimit);
const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp"]; // the server looks at the content itself

let key = "";
let request = null;

export const hasFile = () => field.files.length > 0;

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

function show(tell) {
  const [file] = field.files;
  URL.revokeObjectURL(preview.src);
  preview.removeAttribute("src");
  preview.hidden = true;
  bar.hidden = true;
  key = newKey();
  chosen.classList.toggle("there", Boolean(file));
  chosen.classList.toggle("image", PICTURES.includes(file?.type));
  if (!file) return;
  if (file.size > limit) {
    field.value = "";
    show(tell);
    tell(`${file.name} has ${size(file.size)}, and the limit is ${size(limit)}. Choose a smaller file.`);
    return;
  }
  tell("");
  document.getElementById("file-name").textContent = file.name;
  document.getElementById("file-size").textContent = size(file.size);
  if (PICTURES.includes(file.type)) {
    preview.src = URL.createObjectURL(file);
    preview.hidden = false;
  }
}

function take(files, tell) {
  if (!files?.length || request) return false;
  const transfer = new DataTransfer();
  transfer.items.add(files[0]);
  field.files = transfer.files;
  show(tell);
  if (chosen.classList.contains("image")) alt.focus();
  if (files.length > 1) tell("One file at a time: the first one is chosen.");
  return true;
}

// Send the form with its file; resolves with the message, rejects with an Error whose text is for people.
export function upload() {
  if (request) return Promise.reject(new Error("Wait: a file is being sent."));
  const data = new FormData(composer);
  data.set("key", key);
  bar.hidden = false;
  bar.value = 0;
  return new Promise((resolve, reject) => {
    request = new XMLHttpRequest();
    request.open("POST", composer.action);
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => (bar.value = total ? loaded / total : 0);
    request.onload = () => {
      const { status, response } = request;
      if (status === 200 && response?.id) resolve(response);
      else reject(new Error(response?.error ?? explain(status)));
    };
    request.onerror = () => reject(new Error("The file was not sent: the connection was lost. Send it again."));
    request.onabort = () => reject(new Error("The file was not sent."));
    request.onloadend = () => {
      request = null;
      bar.hidden = true;
    };
    request.send(data);
  });
}

function explain(status) {
  if (status === 413) return `The file is too large for this server; the limit is ${size(limit)}.`;
  if (status === 403) return "The page is too old to send files. Load it again.";
  return `The file was not sent: the server answered ${status}. Send it again.`;
}

export function clear() {
  request?.abort();
  field.value = "";
  alt.value = "";
  show(() => {});
}

// `tell` shows a problem, or hides it.
export function begin(tell) {
  field.addEventListener("change", () => {
    show(tell);
    if (chosen.classList.contains("image")) alt.focus();
  });
  document.getElementById("remove").addEventListener("click", () => {
    clear();
    tell("");
    document.getElementById("text").focus();
  });
  document.addEventListener("paste", (event) => {
    // Word processors put a picture of the text beside the text.
    if (event.clipboardData?.types.includes("text/plain")) return;
    if (take(event.clipboardData?.files, tell)) event.preventDefault();
  });
  const isFile = (event) => event.dataTransfer?.types.includes("Files");
  for (const type of ["dragenter", "dragover"]) {
    chat.addEventListener(type, (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      chat.classList.add("dropping");
    });
  }
  chat.addEventListener("dragleave", (event) => {
    if (!chat.contains(event.relatedTarget)) chat.classList.remove("dropping");
  });
  chat.addEventListener("drop", (event) => {
    chat.classList.remove("dropping");
    if (!isFile(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files, tell);
  });
}
