// While there is no socket the page asks again by itself: a server that answers slowly is asked less often.
export const pause = (took) => Math.max(250 * Math.sqrt(took) - 1000, 1000);
