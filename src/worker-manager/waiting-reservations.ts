/*
 * Reservations that found no idle slot, and the starts that were asked for on their behalf. A reservation does not own
 * the start that it caused: whichever slot of its function version is free first is given to whoever has waited longest, be
 * it one that another invocation gives back or one whose start begins. So there are always as many starts asked for as
 * reservations wait, and when a reservation needs none any more the start that was asked for last is taken back.
 */

interface Line<Reservation, Start> {
  readonly reservations: Reservation[];
  readonly starts: Start[];
}

/** Who is served, and the start that nobody waits for now; null when there is none. */
export interface Served<Reservation, Start> {
  readonly reservation: Reservation;
  readonly surplus: Start | null;
}

/** Lines of reservations in their order, one for each function version (`key`). Decides; calls nobody. */
export class WaitingReservations<Reservation, Start> {
  readonly #lines: Map<string, Line<Reservation, Start>> = new Map();

  /** How many reservations wait. */
  get size(): number {
    let size = 0;
    for (const { reservations } of this.#lines.values()) size += reservations.length;
    return size;
  }

  /** A reservation begins to wait, and a start was asked for. */
  add(key: string, reservation: Reservation, start: Start): void {
    const line = this.#lines.get(key);
    if (line === undefined) this.#lines.set(key, { reservations: [reservation], starts: [start] });
    else {
      line.reservations.push(reservation);
      line.starts.push(start);
    }
  }

  /** A slot is free: the reservation that gets it, or null when none waits. */
  slotFree(key: string): Served<Reservation, Start> | null {
    return this.#serve(key, null);
  }

  /** A start begins, its slot is there: the reservation that gets it, or null when none waits. */
  startBegan(key: string, start: Start): Served<Reservation, Start> | null {
    return this.#serve(key, start);
  }

  /** A start failed: the reservation that fails with it. null when the start had been taken back: nobody counts on it. */
  startFailed(key: string, start: Start): Reservation | null {
    if (this.#lines.get(key)?.starts.includes(start) !== true) return null;
    return this.#serve(key, start)?.reservation ?? null;
  }

  /** A reservation waits no longer: the start that nobody waits for now. null when the reservation did not wait. */
  giveUp(key: string, reservation: Reservation): Start | null {
    const line = this.#lines.get(key);
    const index = line?.reservations.indexOf(reservation) ?? -1;
    if (line === undefined || index === -1) return null;
    line.reservations.splice(index, 1);
    const surplus = line.starts.pop() ?? null;
    this.#dropEmpty(key, line);
    return surplus;
  }

  /** The first in line goes, and with it `start`, or else the start that was asked for last. */
  #serve(key: string, start: Start | null): Served<Reservation, Start> | null {
    const line = this.#lines.get(key);
    const reservation = line?.reservations.shift();
    if (line === undefined || reservation === undefined) return null;
    const index = start === null ? -1 : line.starts.indexOf(start);
    const surplus = index === -1 ? (line.starts.pop() ?? null) : null;
    if (index !== -1) line.starts.splice(index, 1);
    this.#dropEmpty(key, line);
    return { reservation, surplus };
  }

  #dropEmpty(key: string, line: Line<Reservation, Start>): void {
    if (line.reservations.length === 0) this.#lines.delete(key);
  }
}
