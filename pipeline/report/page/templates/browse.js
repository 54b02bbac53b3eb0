// All clips of a run, one page of them at a time from the local server.

class RunGallery extends Gallery {
  listenFinding() {
    for (const role of ["sort", "label"]) this.part(role)?.addEventListener("change", () => this.turn({ offset: 0 }));
    this.part("text").addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.turn({ offset: 0 }), 250);
    });
    this.part("earlier").addEventListener("click", () => this.turn({ offset: this.data.offset - this.data.size_of_page }));
    this.part("later").addEventListener("click", () => this.turn({ offset: this.data.offset + this.data.size_of_page }));
    this.part("reset").addEventListener("click", () => { this.clear(); this.turn({ offset: 0 }); });
  }

  clear() {
    this.part("text").value = "";
    this.part("sort").selectedIndex = 0;
    if (this.part("label")) this.part("label").value = "all";
  }

  /** Fetch a page of clips: the one at `offset`, or the one that holds `clip`. Returns whether it has any. */
  async turn(place) {
    const request = this.request = (this.request ?? 0) + 1;
    const query = new URLSearchParams({ text: this.part("text").value, sort: this.part("sort").value, label: this.part("label")?.value ?? "all", ...place });
    let page;
    try {
      const response = await fetch(`clips?${query}`);
      if (!response.ok) throw new Error(await response.text());
      page = await response.json();
    } catch (error) {
      this.part("count").textContent = `The clips cannot be read: ${error.message}`;
      return false;
    }
    // An answer that was overtaken by a later request is dropped.
    if (!await this.fill(page.clips, () => request === this.request)) return false;
    Object.assign(this.data, { found: page.found, offset: page.offset });
    this.list();
    if (page.clips.length) this.go(0);
    return page.clips.length > 0;
  }

  list() {
    const { clips, found, offset, size_of_page: size } = this.data;
    this.part("cards").replaceChildren(...this.cards.map((card) => card.item));
    this.part("count").textContent = clips.length
      ? `Clips ${offset + 1} to ${offset + clips.length} of ${found}. Cards show how much the map changed.` : "No clips match these filters.";
    this.part("earlier").disabled = offset === 0;
    this.part("later").disabled = offset + size >= found;
  }

  relist() { this.show(this.current); }

  show(i) { if (this.data.clips.length) super.show(i); }

  /** Show the state of a link, whose clip may be on another page. */
  async follow(state) {
    if (this.data.clips.every((clip) => clip.id !== state.get("clip"))) {
      this.clear();
      this.linked = false;
      await this.turn({ clip: state.get("clip") });
      this.linked = true;
    }
    return super.follow(state);
  }

  reset() {}
}

startTheme();
const galleries = [new RunGallery(document.querySelector("[data-gallery]"), DATA.galleries.run)];
startKeys(galleries);
galleries[0].start().then(async () => {
  Gallery.last = galleries[0];
  const follow = (address) => followLink(galleries, "It is not in this run.", address);
  await follow(location.href);
  // Not location: a gallery may have written its own state there in the meantime.
  addEventListener("hashchange", (event) => follow(event.newURL));
  document.documentElement.dataset.ready = "true";
});
